"""Reading anyone's LoRA file: each module's adapter by the module that it changes.

The one reader for inspect, merge, generate and sheet. Names are read in lora/key_layouts.py, kinds
in lora/algorithms.py, headers in lora/metadata.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unziplora.errors import InvalidInput
from unziplora.lora.adapter_config import AdapterConfig, adapter_configs
from unziplora.lora.algorithms import Adapter, LoKr, LoraLayer, build
from unziplora.lora.key_layouts import (
    Key,
    Network,
    Target,
    layout_of,
    parse_key,
    res_blocks_of,
    target_of,
)
from unziplora.lora.metadata import LoraInfo, info_of
from unziplora.lora.tensor_file import TensorFile, open_tensors
from unziplora.unet.layer_names import is_attention_layer

_PEFT_NETWORKS: dict[Network, str] = {
    "unet": "unet",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
}
# What is not read, by what the names have in them.
_UNREAD = {
    "bundle_emb": "bundled embedding tensors",
    "oft_r": "OFT tensors as peft writes them",
    "ia3_l": "(IA)^3 tensors as peft writes them",
    "vera_lambda": "VeRA tensors",
    "lora_embedding": "embedding tensors",
    "lambda_layer": "T-LoRA tensors",  # of a change from what its trainer made at random
    "q_layer": "T-LoRA tensors",
    "p_layer": "T-LoRA tensors",
    "bias": "bias tensors",
}
# Other models' layers, by what their names have in them.
_OTHER_MODELS = {
    "double_blocks": "FLUX",
    "single_transformer_blocks": "FLUX",
    "joint_blocks": "Stable Diffusion 3",
    "add_q_proj": "Stable Diffusion 3",
    "double_stream": "another model",
    "cross_attn": "another model",
}


@dataclass(frozen=True)
class LoraFile:
    """adapters: by the module that each changes. left_out: how many tensors or modules of other
    kinds there are, by kind. layout: whose way of naming this is. model: what else it is a LoRA of,
    where none of its UNet's modules is SDXL's; CLIP-L's layers are the same in many.
    changed_base: the initialisation, where the file belongs to a base that it changed. info,
    metadata: the header, typed and as it stands. notes: what was odd, a sentence each."""

    path: Path
    adapters: Mapping[Target, Adapter]
    left_out: Mapping[str, int]
    layout: str
    model: str | None
    changed_base: str | None
    info: LoraInfo
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def layers(self) -> dict[str, LoraLayer]:
        """The plain LoRA layers of the UNet's attention, by sgm name: what our own files have."""
        return {
            target.module: adapter
            for target, adapter in self.adapters.items()
            if target.network == "unet"
            and isinstance(adapter, LoraLayer)
            and is_attention_layer(target.module)
        }

    @property
    def kinds(self) -> dict[str, int]:
        """How many modules there are of each kind of adapter."""
        return dict(Counter(adapter.kind for adapter in self.adapters.values()).most_common())


def read_lora(path: Path) -> LoraFile:
    """Raises InvalidInput for what is no LoRA in a .safetensors file."""
    with open_tensors(path) as file:
        left_out: Counter[str] = Counter()
        keys = _keys(file.entries, left_out)
        if not keys and not left_out.keys() - {"unknown tensors"}:
            raise InvalidInput(
                f"{path.name} is not a LoRA: it has no lora_down and lora_up tensors. "
                "Choose a LoRA's .safetensors file."
            )
        notes = list(file.notes)
        configs = {**_config_beside(path, notes), **adapter_configs(file.metadata, notes)}
        adapters = _adapters(file, keys, configs, left_out)
        info = info_of(file.metadata)
        return LoraFile(
            path=path,
            adapters=adapters,
            left_out=dict(left_out),
            layout=layout_of(keys),
            model=_other_model(file.entries, keys, adapters),
            changed_base=_changed_base(configs, notes),
            info=info,
            metadata=file.metadata,
            notes=(*notes, *info.notes),
        )


def check_readable(file: LoraFile) -> None:
    """Raises InvalidInput for a file of another model or base, or without anything that can be
    read."""
    if file.changed_base is not None:
        raise InvalidInput(
            f"{file.path.name} was trained from {file.changed_base}, which changes the model's own "
            "weights, too. Save it with peft's path_initial_model_for_weight_conversion, or choose "
            "another LoRA."
        )
    if file.adapters and file.model is None:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in file.left_out.items())
    what = f"It is for {file.model}" if file.model else f"It has {kinds or 'no tensors'}"
    raise InvalidInput(
        f"{file.path.name} has no layers of an SDXL model that can be read here. {what}; choose a "
        "LoRA for SDXL."
    )


def _keys(names: Iterable[str], left_out: Counter[str]) -> dict[str, Key]:
    """The tensors that belong to an adapter, by name, taken apart."""
    keys = {}
    for name in names:
        key = parse_key(name)
        if key is None:
            left_out[_kind_of(name)] += 1
        else:
            keys[name] = key
    # a weight alone is a checkpoint's; with on_input it is a factor of (IA)^3
    factors = {(key.network, key.module) for key in keys.values() if key.part == "on_input"}
    for name, key in list(keys.items()):
        if key.part == "weight" and (key.network, key.module) not in factors:
            del keys[name]
            left_out[_kind_of(name)] += 1
    return keys


def _kind_of(name: str) -> str:
    """Of a tensor that is not read."""
    return next((k for mark, k in _UNREAD.items() if mark in name.lower()), "unknown tensors")


def _adapters(
    file: TensorFile,
    keys: Mapping[str, Key],
    configs: Mapping[str, AdapterConfig],
    left_out: Counter[str],
) -> dict[Target, Adapter]:
    """Counts in left_out what cannot be read."""
    modules = _tensors_by_module(keys)
    res_blocks = res_blocks_of(module for network, module in modules if network == "unet")
    adapters = {}
    for (network, module), names in modules.items():
        target = target_of(network, module, res_blocks)
        if not all(file.entries[name].readable for name in names.values()):
            left_out["modules of an unknown dtype"] += 1
        elif target is None:
            left_out["modules of an unknown name"] += 1
        else:
            parts = {part: file.read(name) for part, name in names.items()}
            config = configs.get(_PEFT_NETWORKS[network], configs.get(""))
            adapter = _built(config, module, parts)
            if adapter is None:
                left_out["modules whose tensors do not belong together"] += 1
            else:
                left_out.update("unknown tensors" for _ in parts)  # those that build left
                adapters[target] = adapter
    return adapters


def _tensors_by_module(keys: Mapping[str, Key]) -> dict[tuple[Network, str], dict[str, str]]:
    """For each module that a file changes, the names of its tensors by their part."""
    modules: dict[tuple[Network, str], dict[str, str]] = {}
    for name, key in keys.items():
        modules.setdefault((key.network, key.module), {}).setdefault(key.part, name)
    return modules


def _built(
    config: AdapterConfig | None, module: str, parts: dict[str, torch.Tensor]
) -> Adapter | None:
    if config is None:
        return build(parts, None)
    whole = {"lokr_w1", "lokr_w2"} <= parts.keys() and "alpha" not in parts
    adapter = build(parts, _alpha(config, module, parts))
    rank = config.rank_of(module)
    if whole and rank > 0 and isinstance(adapter, LoKr):  # peft scales these too, LyCORIS does not
        return replace(adapter, scale=config.alpha_of(module) / rank)
    return adapter


def _alpha(config: AdapterConfig, module: str, parts: Mapping[str, torch.Tensor]) -> float:
    """peft's alpha as kohya's, which is divided by r and not by its root."""
    alpha = config.alpha_of(module)
    factor = parts.get("down", parts.get("hada_w1_b", parts.get("lokr_w2_b")))
    if config.rank_stabilised and factor is not None:
        alpha *= float(factor.shape[0] ** 0.5)
    return alpha


def _config_beside(path: Path, notes: list[str]) -> dict[str, AdapterConfig]:
    """What peft itself writes beside adapter_model.safetensors."""
    beside = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not beside.is_file():
        return {}
    try:
        metadata = {"lora_adapter_metadata": beside.read_text("utf-8")}
    except (OSError, ValueError):
        return {}
    return adapter_configs(metadata, notes)


def _changed_base(configs: Mapping[str, AdapterConfig], notes: list[str]) -> str | None:
    start = next((one.changed_base for one in configs.values() if one.changed_base), None)
    if start is not None:
        notes.append(
            f"It belongs to a model that {start} changed, and cannot be used on any other."
        )
    return start


def _other_model(
    names: Iterable[str], keys: Mapping[str, Key], adapters: Mapping[Target, Adapter]
) -> str | None:
    """None also where only text encoders are changed."""
    read = {target.network for target in adapters}
    if "unet" in read:
        return None
    text = " ".join(names)
    named = next((model for mark, model in _OTHER_MODELS.items() if mark in text), None)
    modules = {key.module for key in keys.values() if key.network == "unet"}
    unknown = all(target_of("unet", module, 2) is None for module in modules)
    return "another model" if named is None and read and modules and unknown else named
