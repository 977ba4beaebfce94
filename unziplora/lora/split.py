"""One LoRA file as a pair: B-LoRA (arXiv 2403.14572) keeps content and style in two groups of one
file, and whoever uses it takes one of them or both."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from unziplora import files as atomic
from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.key_layouts import Target
from unziplora.lora.metadata import part_metadata
from unziplora.lora.pair import pair_files
from unziplora.lora.read import LoraFile, check_readable, read_lora
from unziplora.lora.sidecars import Card, write_card
from unziplora.lora.write import module_name, save_modules
from unziplora.method.blocks import B_LORA
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.unet.layer_names import group_of, is_attention_layer

METHOD = "b-lora"  # of the pair's headers


@dataclass(frozen=True)
class SplitPair:
    """left_out: how many layers belong to neither."""

    files: Mapping[BranchName, Path]
    layers: Mapping[BranchName, int]
    left_out: int


def split(path: Path, folder: Path, name: str, triggers: Mapping[BranchName, str]) -> SplitPair:
    """NAME_content and NAME_style in a folder, linked as a pair, of the groups that B-LoRA trains
    for either: layers are as they were, and those of other groups are left out. triggers: what
    calls each in a prompt.

    Raises InvalidInput for a file that has no LoRA layers in one of the two, or others than plain
    ones, and where a name is taken.
    """
    file = read_lora(path)
    check_readable(file)
    paths = _free_files(folder, name)
    parts = _parts(file)
    pair = uuid.uuid4().hex
    with atomic.all_or_none() as undo:  # numbers of one part may be infinite in its file
        for role, layers in parts.items():
            shapes = {n: (*one.up.shape[:1], *one.down.shape[1:]) for n, one in layers.items()}
            header = part_metadata(file.metadata, paths[role], role, pair, triggers[role], METHOD)
            save_modules(paths[role], layers, header, shapes=shapes, new=True)
            undo.callback(atomic.remove, paths[role])
    for role in parts:
        card = Card(f"The {role} of {path.stem}.", triggers[role], f"Split from {path.name}.")
        write_card(paths[role], card)
    counts = {role: len(layers) for role, layers in parts.items()}
    unread = sum(n for what, n in file.left_out.items() if what.startswith("modules"))
    return SplitPair(paths, counts, len(file.adapters) + unread - sum(counts.values()))


def _free_files(folder: Path, name: str) -> Mapping[BranchName, Path]:
    paths = pair_files(folder, atomic.check_name(name))
    for target in paths.values():
        if os.path.lexists(target):
            raise InvalidInput(f"{target.name} exists already. Choose another name.")
    return paths


def _parts(file: LoraFile) -> dict[BranchName, dict[str, LoraLayer]]:
    """The layers of the groups that B-LoRA trains for either."""
    table = B_LORA.get(file.info.architecture or "", B_LORA["sdxl"])
    _check_plain(file, {group for role in BRANCHES for group in table[role]})
    parts = {role: layers_in(file, table[role]) for role in BRANCHES}
    for role, layers in parts.items():
        if not layers:
            raise InvalidInput(
                f"{file.path.name} has no LoRA layers in {', '.join(table[role])}, where a B-LoRA "
                f"keeps its {role}. Choose a B-LoRA, or a LoRA of all of SDXL's attention."
            )
    return parts


def _check_plain(file: LoraFile, groups: Collection[str]) -> None:
    others = Counter(
        adapter.kind
        for target, adapter in file.adapters.items()
        if _is_in(target, groups) and not isinstance(adapter, LoraLayer)
    )
    if others:
        kinds = ", ".join(f"{count} {kind} modules" for kind, count in others.items())
        raise InvalidInput(
            f"{file.path.name} has {kinds}, which cannot be split here without losing them. Use a "
            "plain LoRA."
        )


def layers_in(file: LoraFile, groups: Collection[str]) -> dict[str, LoraLayer]:
    """A file's plain LoRA layers in these groups of the UNet's attention, fp32, by kohya's name."""
    return {
        module_name(target): LoraLayer(layer.down.float(), layer.up.float(), layer.alpha)
        for target, layer in file.adapters.items()
        if _is_in(target, groups) and isinstance(layer, LoraLayer)
    }


def _is_in(target: Target, groups: Collection[str]) -> bool:
    attention = target.network == "unet" and is_attention_layer(target.module)
    return attention and group_of(target.module) in groups
