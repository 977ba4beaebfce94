"""What peft and diffusers keep in a header of an adapter's rank and alpha."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unziplora.lora.metadata import json_object

_ALPHAS = ("lora_alpha", "alpha")  # of LoRA; of LoHa and LoKr
_LONGEST_PATTERN = 100  # characters
_MOST_PATTERNS = 8  # that are no plain names
_LONGEST_NAME = 128  # of a module, that such patterns are tried on
_PLAIN = re.compile(r"\^?[\w.-]*\Z")
# Initialisations that take A and B out of the base weights, which are then others than before
# (peft tuners/lora/layer.py): what is added to the weights as they were cannot be read of A and B.
_CHANGED_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterConfig:
    """What peft keeps of one network's adapter: rank and alpha, and exceptions from them by regular
    expressions for the end of a module's name (peft utils/other.py, get_pattern_key).
    rank_stabilised: the scale is alpha / sqrt(r). changed_base: the initialisation, where A and B
    belong to a base that it changed."""

    rank: float
    alpha: float
    ranks: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    changed_base: str | None = None

    def alpha_of(self, module: str) -> float:
        """module: its name below the network, with dots."""
        return _by_pattern(self.alphas, module, self.alpha)

    def rank_of(self, module: str) -> float:
        """0 where the config has none."""
        return _by_pattern(self.ranks, module, self.rank)


def adapter_configs(metadata: Mapping[str, str], notes: list[str]) -> dict[str, AdapterConfig]:
    """peft's configs in a header, by network ("unet", "text_encoder", "text_encoder_2"; "": of all)
    as diffusers writes them from 0.34 on: one object whose keys begin with the network's name."""
    config = json_object(metadata, "lora_adapter_metadata", notes)
    networks: dict[str, dict[str, Any]] = {}
    for key, value in config.items():
        network, _, name = key.rpartition(".")
        if isinstance(value, dict) and any(alpha in value for alpha in _ALPHAS):
            # nested instead of flat
            networks[key] = value
        else:
            networks.setdefault(network, {})[name] = value
    found = {network: _adapter_config(one, notes) for network, one in networks.items()}
    return {network: one for network, one in found.items() if one is not None}


def _adapter_config(config: Mapping[str, Any], notes: list[str]) -> AdapterConfig | None:
    rank = _real(config.get("r"))
    alpha = next((n for key in _ALPHAS if (n := _real(config.get(key))) is not None), None)
    if alpha is None:
        return None
    start = str(config.get("init_lora_weights")).lower()
    return AdapterConfig(
        rank or 0.0,
        alpha,
        _pattern(config.get("rank_pattern"), notes),
        _pattern(config.get("alpha_pattern"), notes),
        config.get("use_rslora") is True,
        start[:40] if start.startswith(_CHANGED_BASE) else None,
    )


def _pattern(config: Any, notes: list[str]) -> dict[str, float]:
    pairs = config.items() if isinstance(config, dict) else ()
    found = {str(key): n for key, value in pairs if (n := _real(value)) is not None}
    special = [key for key in found if not _PLAIN.match(key)]
    if len(special) > _MOST_PATTERNS or not all(map(_is_simple, special)):
        notes.append(
            "Its header has patterns of module names that are too complex to be read; they are "
            "taken as plain names."
        )
        return {key if _PLAIN.match(key) else re.escape(key): n for key, n in found.items()}
    return found


def _is_simple(pattern: str) -> bool:
    """Whether matching it is certain to end soon: files are not trusted. Nothing is repeated but
    single characters, and little of that."""
    text = re.sub(r"\\.", "x", pattern)  # what is escaped stands for one character
    repeats = len(re.findall("[*+?]", text))
    if len(pattern) > _LONGEST_PATTERN or repeats > 2 or text.count("|") > 3:
        return False
    if re.search(r"\)[*+?]|\(\?|[{}]|\\", text):
        return False
    try:
        return re.compile(pattern).groups <= 3
    except (re.error, RecursionError, OverflowError):
        return False


def _by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    return next((n for key, n in patterns.items() if _names(key, module)), otherwise)


def _names(pattern: str, module: str) -> bool:
    if _PLAIN.match(pattern):
        return module == pattern.lstrip("^") or module.endswith(f".{pattern}")
    if len(module) > _LONGEST_NAME:
        return False
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _real(value: Any) -> float | None:
    """A finite number of a config."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and abs(value) < 1e30 else None
