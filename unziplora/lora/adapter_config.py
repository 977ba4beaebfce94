"""What peft and diffusers keep in a header of an adapter's rank and alpha."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unziplora.lora.metadata import json_object


@dataclass(frozen=True)
class AdapterConfig:
    """What peft keeps of one network's adapter: rank and alpha, and exceptions from them by the
    end of a module's name (peft tuners/tuners_utils.py, get_pattern_key). rank_stabilised: the
    scale is alpha / sqrt(r)."""

    rank: float
    alpha: float
    ranks: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False

    def alpha_of(self, module: str) -> float:
        """module: its name below the network, with dots."""
        return _by_pattern(self.alphas, module, self.alpha)


def adapter_configs(metadata: Mapping[str, str], notes: list[str]) -> dict[str, AdapterConfig]:
    """peft's configs in a header, by network ("unet", "text_encoder", "text_encoder_2"; "": of all)
    as diffusers writes them from 0.34 on: one object whose keys begin with the network's name."""
    config = json_object(metadata, "lora_adapter_metadata", notes)
    networks: dict[str, dict[str, Any]] = {}
    for key, value in config.items():
        network, _, name = key.rpartition(".")
        if isinstance(value, dict) and "lora_alpha" in value:  # nested instead of flat
            networks[key] = value
        else:
            networks.setdefault(network, {})[name] = value
    return {network: c for network, one in networks.items() if (c := _adapter_config(one))}


def _adapter_config(config: Mapping[str, Any]) -> AdapterConfig | None:
    rank, alpha = _real(config.get("r")), _real(config.get("lora_alpha"))
    if alpha is None:
        return None
    return AdapterConfig(
        rank or 0.0,
        alpha,
        _pattern(config.get("rank_pattern")),
        _pattern(config.get("alpha_pattern")),
        config.get("use_rslora") is True,
    )


def _pattern(config: Any) -> dict[str, float]:
    pairs = config.items() if isinstance(config, dict) else ()
    return {str(key).lstrip("^"): n for key, value in pairs if (n := _real(value)) is not None}


def _by_pattern(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    for end, value in pattern.items():
        if module == end or module.endswith(f".{end}"):
            return value
    return otherwise


def _real(value: Any) -> float | None:
    """A finite number of a config."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and abs(value) < 1e30 else None
