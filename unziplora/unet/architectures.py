"""The UNets of SDXL's family, as a table, and which of them one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from unziplora.errors import InvalidInput
from unziplora.unet.layer_names import attention_layers, depths

MINIATURE = "mini"  # the project's own (unziplora/mini)


@dataclass(frozen=True)
class Architecture:
    """One member of the family.

    name: as in method/blocks.py's tables; sdxl-like has SDXL's eleven groups with other depths.
    groups: transformer depth by sgm group, in the order in which the UNet runs them.
    res_blocks: residual blocks a level.
    middle: what stands between the two sides: attention, a residual block only, or nothing.
    by_depths: known by its depths alone; else only where the model says that it is one, for others
    may have the same depths.
    """

    name: str
    groups: Mapping[str, int]
    res_blocks: int = 2
    middle: Literal["attention", "resnet", "none"] = "attention"
    by_depths: bool = True


# Depths: SDXL: stability's config; SSD-1B, Vega: segmind's; KOALA: etri-vilab's.
_FAMILY = (
    Architecture(
        "sdxl",
        {
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
    ),
    Architecture(
        "ssd-1b",
        {
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
        middle="resnet",
    ),
    Architecture(
        "vega",
        {
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
        middle="resnet",
    ),
    Architecture(
        "koala-1b",
        {
            "input_blocks.3.1": 2,
            "input_blocks.5.1": 6,
            "middle_block.1": 6,
            "output_blocks.0.1": 6,
            "output_blocks.1.1": 6,
            "output_blocks.2.1": 2,
            "output_blocks.3.1": 2,
        },
        res_blocks=1,
    ),
    Architecture(
        "koala-700m",
        {
            "input_blocks.3.1": 2,
            "input_blocks.5.1": 5,
            "output_blocks.0.1": 5,
            "output_blocks.1.1": 5,
            "output_blocks.2.1": 2,
            "output_blocks.3.1": 2,
        },
        res_blocks=1,
        middle="none",
    ),
    Architecture(
        MINIATURE,
        {
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
        by_depths=False,
    ),
)


def family() -> dict[str, Architecture]:
    """The five published members and the miniature, by name."""
    return {member.name: replace(member, groups=dict(member.groups)) for member in _FAMILY}


def architecture_of(layers: Iterable[str], stated: str | None = None) -> Architecture:
    """The architecture whose attention layers have these sgm names.

    stated: what the model or file says of itself, where it does; it must fit. Raises InvalidInput
    for groups that no member of the SDXL family has.
    """
    found = depths(layers)
    for member in family().values():
        if found == member.groups and (member.by_depths or member.name == stated):
            return member
    sdxl = family()["sdxl"]
    if found.keys() == sdxl.groups.keys():
        return replace(
            sdxl, name="sdxl-like", groups={group: found[group] for group in sdxl.groups}
        )
    raise InvalidInput(
        "This UNet is not of the SDXL family: its attention groups are "
        f"{', '.join(sorted(found)) or 'none'}. "
        "Choose an SDXL checkpoint, or one of SSD-1B, Segmind Vega, KOALA-1B, KOALA-700M."
    )


def recognise(unet: nn.Module, stated: str | None = None) -> Architecture:
    """The architecture of a UNet of either layout; stated: the host's `defaults.architecture`.
    Raises InvalidInput if it is none of ours."""
    return architecture_of(attention_layers(unet), stated)
