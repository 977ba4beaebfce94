"""Two LoRAs as one file, exactly; and how much their open columns overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.lora.metadata import merged_metadata
from unziplora.lora.read import LoraFile, read_lora
from unziplora.lora.write import LoraLayer, SavedLora, save_lora, tensor_hash
from unziplora.unet.layer_names import group_of

OVERLAP_WARNING = 0.5  # of the columns that either has open


def merge(path: Path, parts: Sequence[tuple[Path, float]]) -> SavedLora:
    """One file that adds up the parts with their weights: the sum of the weight changes is exact,
    because the ranks stand side by side.

        sum_i w_i (alpha_i / r_i) B_i A_i  =  [w_1 (alpha_1 / r_1) B_1, ...] [A_1; A_2; ...]

    Raises InvalidInput where a part is no LoRA of the UNet's attention alone, where layers do not
    fit each other, or where the file exists.
    """
    if path.exists():
        raise InvalidInput(f"{path.name} exists already. Choose another name.")
    files = [(_whole(read_lora(part)), weight) for part, weight in parts]
    names = sorted({name for file, _ in files for name in file.layers})
    layers = {}
    for name in names:
        own = [(file.layers[name], weight) for file, weight in files if name in file.layers]
        layers[name] = _sum(name, own)
    shapes = {name: (lora.up.shape[0], lora.down.shape[1]) for name, lora in layers.items()}
    return save_lora(path, layers, _metadata(path, files), shapes=shapes)


def _whole(file: LoraFile) -> LoraFile:
    if file.others or not file.layers:
        left = ", ".join(file.others) or "nothing of an SDXL UNet's attention"
        raise InvalidInput(
            f"{file.path.name} has {left}, which cannot be merged here without losing it. "
            "Use LoRAs of the UNet's attention, such as ours."
        )
    return file


def _sum(name: str, own: Sequence[tuple[LoraLayer, float]]) -> LoraLayer:
    if len({(lora.up.shape[0], lora.down.shape[1]) for lora, _ in own}) > 1:
        raise InvalidInput(
            f"The layer {name} has another size in the other file. Merge LoRAs of one architecture."
        )
    scales = [weight * lora.alpha / lora.down.shape[0] for lora, weight in own]
    ups = [scale * lora.up.float() for (lora, _), scale in zip(own, scales, strict=True)]
    down = torch.cat([lora.down.float() for lora, _ in own])
    return LoraLayer(down, torch.cat(ups, dim=1), float(down.shape[0]))


def _metadata(path: Path, files: Sequence[tuple[LoraFile, float]]) -> dict[str, str]:
    rank = sum(max(lora.down.shape[0] for lora in file.layers.values()) for file, _ in files)
    parts = [
        (file.path.stem, weight, tensor_hash(file.path), file.metadata) for file, weight in files
    ]
    return merged_metadata(path.stem, rank, parts)


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
