"""One layer's names in sgm, diffusers and kohya.

Inside the project a layer is called by its sgm name below the UNet, as
`output_blocks.1.1.transformer_blocks.3.attn2.to_k`; its *group* is `output_blocks.1.1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")

_ATTENTION_LAYER = re.compile(
    r"(?P<group>.+)\.transformer_blocks\.(?P<block>\d+)\.(?P<attention>attn[12])"
    r"\.(?P<projection>to_q|to_k|to_v|to_out\.0)"
)
_DIFFUSERS_GROUP = re.compile(
    r"(?P<part>down_blocks|up_blocks|mid_block)(?:\.(?P<i>\d+))?\.attentions\.(?P<j>\d+)"
)
_SGM_GROUP = re.compile(r"(?:input_blocks|output_blocks)\.\d+\.1|middle_block\.1")


def depths(layers: Iterable[str]) -> dict[str, int]:
    """Transformer blocks of each group, of attention layers' sgm names; other names are left."""
    blocks: dict[str, set[str]] = {}
    for layer in layers:
        if (match := _ATTENTION_LAYER.fullmatch(layer)) is not None:
            blocks.setdefault(match["group"], set()).add(match["block"])
    return {group: len(numbers) for group, numbers in blocks.items()}


def attention_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """to_q, to_k, to_v and to_out.0 of every attention, by sgm name and in its order, so that one
    seed starts alike in every program; the UNet may be sgm's or diffusers', and is read by names
    only, never by class."""
    names = dict(unet.named_modules())
    res_blocks = sum(
        re.fullmatch(r"down_blocks\.0\.resnets\.\d+", name) is not None for name in names
    )
    layers = {}
    for name, module in names.items():
        if _ATTENTION_LAYER.fullmatch(name) is not None:
            layers[sgm_name(name, res_blocks)] = module
    return dict(sorted(layers.items()))


def sgm_name(name: str, res_blocks: int = 2) -> str:
    """The sgm name of a diffusers or sgm attention layer or group.

    res_blocks: residual blocks a level, n: `down_blocks.i.attentions.j` is
    `input_blocks.{(n+1)i+j+1}.1`, `up_blocks.i.attentions.j` is `output_blocks.{(n+1)i+j}.1`
    (kohya-ss/sd-scripts library/sdxl_model_util.py:299-340, for n = 2).
    """
    match = _DIFFUSERS_GROUP.match(name)
    if match is None:
        return name
    rest = name[match.end() :]
    if match["part"] == "mid_block":
        return "middle_block.1" + rest
    place = (res_blocks + 1) * int(match["i"]) + int(match["j"])
    if match["part"] == "down_blocks":
        return f"input_blocks.{place + 1}.1{rest}"
    return f"output_blocks.{place}.1{rest}"


def group_of(layer: str) -> str:
    """`output_blocks.1.1` of `output_blocks.1.1.transformer_blocks.3.attn2.to_k`."""
    match = _SGM_GROUP.match(layer)
    if match is None:
        raise ValueError(f"{layer} is not the sgm name of an attention layer")
    return match[0]


def is_attention_layer(layer: str) -> bool:
    """Whether this is the sgm name of a projection in one of the UNet's attention groups."""
    match = _ATTENTION_LAYER.fullmatch(layer)
    return match is not None and _SGM_GROUP.fullmatch(match["group"]) is not None


def reads_text(layer: str) -> bool:
    """Whether the layer's input is the text: to_k and to_v of cross-attention (eq. 3)."""
    return layer.endswith(("attn2.to_k", "attn2.to_v"))


def kohya_name(layer: str) -> str:
    """The module's name in a LoRA file (networks/lora.py:870 of kohya-ss/sd-scripts)."""
    return "lora_unet_" + layer.replace(".", "_")
