"""One layer's names in sgm, diffusers and kohya, and which SDXL-family UNet a set of names is.

Inside the project a layer is called by its sgm name below the UNet, as
`output_blocks.1.1.transformer_blocks.3.attn2.to_k`; its *group* is `output_blocks.1.1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from unziplora.errors import InvalidInput

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")

_ATTENTION_LAYER = re.compile(
    r"(?P<group>.+)\.transformer_blocks\.(?P<block>\d+)\.(?P<attention>attn[12])"
    r"\.(?P<projection>to_q|to_k|to_v|to_out\.0)"
)
_DIFFUSERS_GROUP = re.compile(
    r"(?P<part>down_blocks|up_blocks|mid_block)(?:\.(?P<i>\d+))?\.attentions\.(?P<j>\d+)"
)
_SGM_GROUP = re.compile(r"(?:input_blocks|output_blocks)\.\d+\.1|middle_block\.1")

# Transformer depth of each attention group (SDXL: stability's config; SSD-1B, Vega: segmind's;
# KOALA: etri-vilab's), in the order in which the UNet runs them.
_FAMILY = {
    "sdxl": {
        "input_blocks.4.1": 2,
        "input_blocks.5.1": 2,
        "input_blocks.7.1": 10,
        "input_blocks.8.1": 10,
        "middle_block.1": 10,
        "output_blocks.0.1": 10,
        "output_blocks.1.1": 10,
        "output_blocks.2.1": 10,
        "output_blocks.3.1": 2,
        "output_blocks.4.1": 2,
        "output_blocks.5.1": 2,
    },
    "ssd-1b": {
        "input_blocks.4.1": 2,
        "input_blocks.5.1": 2,
        "input_blocks.7.1": 4,
        "input_blocks.8.1": 4,
        "output_blocks.0.1": 4,
        "output_blocks.1.1": 4,
        "output_blocks.2.1": 10,
        "output_blocks.3.1": 2,
        "output_blocks.4.1": 1,
        "output_blocks.5.1": 1,
    },
    "vega": {
        "input_blocks.4.1": 1,
        "input_blocks.5.1": 1,
        "input_blocks.7.1": 2,
        "input_blocks.8.1": 2,
        "output_blocks.0.1": 2,
        "output_blocks.1.1": 2,
        "output_blocks.2.1": 2,
        "output_blocks.3.1": 1,
        "output_blocks.4.1": 1,
        "output_blocks.5.1": 1,
    },
    "koala-1b": {
        "input_blocks.3.1": 2,
        "input_blocks.5.1": 6,
        "middle_block.1": 6,
        "output_blocks.0.1": 6,
        "output_blocks.1.1": 6,
        "output_blocks.2.1": 2,
        "output_blocks.3.1": 2,
    },
    # the project's own miniature (unziplora/mini)
    "mini": {
        "input_blocks.4.1": 1,
        "input_blocks.5.1": 1,
        "input_blocks.7.1": 1,
        "input_blocks.8.1": 1,
        "middle_block.1": 1,
        "output_blocks.0.1": 1,
        "output_blocks.1.1": 1,
        "output_blocks.2.1": 1,
        "output_blocks.3.1": 1,
        "output_blocks.4.1": 1,
        "output_blocks.5.1": 1,
    },
    "koala-700m": {
        "input_blocks.3.1": 2,
        "input_blocks.5.1": 5,
        "output_blocks.0.1": 5,
        "output_blocks.1.1": 5,
        "output_blocks.2.1": 2,
        "output_blocks.3.1": 2,
    },
}


@dataclass(frozen=True)
class Architecture:
    """Which member of the family a UNet is.

    name: sdxl, ssd-1b, vega, koala-1b, koala-700m, mini, or sdxl-like (SDXL's eleven groups with
    other depths); groups: transformer depth by sgm group, in the order in which the UNet runs them;
    res_blocks: residual blocks a level.
    """

    name: str
    groups: dict[str, int]
    res_blocks: int


def family() -> dict[str, Architecture]:
    """The five published members and the miniature, by name."""
    return {
        name: Architecture(name, dict(groups), 1 if name.startswith("koala") else 2)
        for name, groups in _FAMILY.items()
    }


def architecture_of(layers: Iterable[str]) -> Architecture:
    """The architecture whose attention layers have these sgm names.

    Raises InvalidInput for groups that no member of the SDXL family has.
    """
    blocks: dict[str, set[str]] = {}
    for layer in layers:
        if (match := _ATTENTION_LAYER.fullmatch(layer)) is not None:
            blocks.setdefault(match["group"], set()).add(match["block"])
    depths = {group: len(numbers) for group, numbers in blocks.items()}
    for member in family().values():
        if depths == member.groups:
            return member
    sdxl = family()["sdxl"]
    if depths.keys() == sdxl.groups.keys():
        return Architecture("sdxl-like", {g: depths[g] for g in sdxl.groups}, sdxl.res_blocks)
    raise InvalidInput(
        "This UNet is not of the SDXL family: its attention groups are "
        f"{', '.join(sorted(depths)) or 'none'}. "
        "Choose an SDXL checkpoint, or one of SSD-1B, Segmind Vega, KOALA-1B, KOALA-700M."
    )


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


def recognise(unet: nn.Module) -> Architecture:
    """The architecture of a UNet of either layout; raises InvalidInput if it is none of ours."""
    return architecture_of(attention_layers(unet))


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


def reads_text(layer: str) -> bool:
    """Whether the layer's input is the text: to_k and to_v of cross-attention (eq. 3)."""
    return layer.endswith(("attn2.to_k", "attn2.to_v"))


def kohya_name(layer: str) -> str:
    """The module's name in a LoRA file (networks/lora.py:870 of kohya-ss/sd-scripts)."""
    return "lora_unet_" + layer.replace(".", "_")
