"""How much the open columns of two LoRAs overlap: where both write, adding them disturbs both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.read import read_lora
from unziplora.unet.layer_names import group_of

OVERLAP_WARNING = 0.5  # of the columns that either has open


@dataclass(frozen=True)
class GroupColumns:
    """Output columns of one attention group in two files: how many are open in the first, in the
    second and in both, and how many there are."""

    first: int
    second: int
    both: int
    total: int

    @property
    def overlap(self) -> float:
        """The share of columns open in both, of those open in either, 0 to 1. Where one is full and
        the other limited to 30 %, as block separation wants it, that is 0.3."""
        return self.both / max(1, self.first + self.second - self.both)


def columns(first: Path, second: Path) -> dict[str, GroupColumns]:
    """By attention group; groups that only one of them has are left out.

    Where both have most columns open, as in two LoRAs without column separation, they write over
    each other when they are added. Raises InvalidInput where a layer has two sizes.
    """
    one, other = read_lora(first).layers, read_lora(second).layers
    counts: dict[str, list[int]] = {}
    for name in sorted(one.keys() & other.keys()):
        a, b = _open(one[name]), _open(other[name])
        if a.shape != b.shape:
            raise InvalidInput(
                f"The layer {name} has another size in {second.name}. "
                "Choose LoRAs of one architecture."
            )
        count = counts.setdefault(group_of(name), [0, 0, 0, 0])
        for i, tensor in enumerate((a, b, a & b)):
            count[i] += int(tensor.sum())
        count[3] += a.numel()
    return {group: GroupColumns(*count) for group, count in counts.items()}


def overlap_warning(groups: Mapping[str, GroupColumns]) -> str | None:
    """A sentence where the two write over each other in many groups."""
    used = [group for group in groups.values() if min(group.first, group.second)]
    high = [group for group in used if group.overlap > OVERLAP_WARNING]
    if len(high) < max(1, math.ceil(len(used) / 2)):
        return None
    return (
        f"In {len(high)} of {len(used)} attention groups most columns are open in both files, "
        "so they will disturb each other. Lower both weights, or train them with column separation."
    )


def _open(lora: LoraLayer) -> Tensor:
    """(out,): columns that are not zero."""
    return lora.up.any(dim=1)
