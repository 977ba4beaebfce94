"""LoRAs as one file: the sum of what they change, exactly, after a projection of the first, or with
mergers that were learned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.key_layouts import Target
from unziplora.lora.merge_methods import DEFAULT_MU, MergeMethod, find_merge_method
from unziplora.lora.mergers import Learned
from unziplora.lora.metadata import info_of, merged_metadata
from unziplora.lora.projection import projected
from unziplora.lora.read import LoraFile, check_readable, read_lora
from unziplora.lora.sidecars import merged_card, write_card
from unziplora.lora.write import SavedLora, module_name, save_modules, tensor_hash

_Part = tuple[LoraFile, float]


def merge(
    path: Path,
    parts: Sequence[tuple[Path, float]],
    image: Image.Image | None = None,
    *,
    how: str = "add",
    mu: float = DEFAULT_MU,
    learned: Learned | None = None,
) -> SavedLora:
    """One file that adds up the parts with their weights: the sum of the weight changes is exact,
    because the ranks stand side by side. how: of MERGE_METHODS, which may project the first part
    before, with mu. learned: what a method that learns has learned of these parts and weights.

        sum_i w_i (alpha_i / r_i) B_i A_i  =  [w_1 (alpha_1 / r_1) B_1, ...] [A_1; A_2; ...]

    Layers of the UNet and of the text encoders, convolutions too. All get one rank, filled up with
    zeros, and alpha = rank: diffusers reads ranks that differ by layer at a wrong scale (0.42.1
    matches its alpha patterns to no layer). A card goes beside the file, with `image` if there is
    one.

    Raises InvalidInput where a part has other than plain LoRA layers, where layers do not fit each
    other, where the parts are not what `how` takes, or where the file exists.
    """
    method = find_merge_method(how)
    files = check_mergeable(path, parts, method, mu)
    if method.learns:
        files = _with_learned(files, learned, method.name)
    targets = sorted(set().union(*(file.adapters for file, _ in files)))
    sums = {target: _sum(target, files, method, mu) for target in targets}
    rank = max(layer.rank for layer in sums.values())
    layers = {module_name(t): _as_module(t, _padded(layer, rank)) for t, layer in sums.items()}
    shapes = {name: (*layer.up.shape[:1], *layer.down.shape[1:]) for name, layer in layers.items()}
    names = [file.path.stem for file, _ in files]
    description = method.described(names, mu)
    weights = [weight for _, weight in parts]
    heads = [_head(file, weight) for (file, _), weight in zip(files, weights, strict=True)]
    record = {**method.recorded(mu), **(learned.record if learned else {})}
    metadata = merged_metadata(path.stem, rank, heads, description, record)
    saved = save_modules(path, layers, metadata, shapes=shapes, new=True)
    write_card(path, merged_card(info_of(metadata), names, description), image)
    return replace(saved, notes=tuple(_left_out(files)))


def _left_out(files: Sequence[_Part]) -> Iterator[str]:
    """What a merged file has not of its parts: what no LoRA layer has a place for."""
    for file, _ in files:
        for what, count in file.left_out.items():
            yield f"{count} {what} of {file.path.name} could not be read and are left out."


def check_mergeable(
    path: Path, parts: Sequence[tuple[Path, float]], method: MergeMethod, mu: float = DEFAULT_MU
) -> list[_Part]:
    """The parts' files, read. Raises InvalidInput as `merge`, before minutes are spent."""
    if os.path.lexists(path):  # when it is written, too
        raise InvalidInput(f"{path.name} exists already. Choose another name.")
    files = [(_plain(read_lora(part)), weight) for part, weight in parts]
    method.check([info_of(file.metadata).role for file, _ in files], mu)
    for target in set().union(*(file.adapters for file, _ in files)):
        _check_sizes(target, [layer for layer, _ in _layers_of(target, files)])
    return files


def _with_learned(files: Sequence[_Part], learned: Learned | None, how: str) -> list[_Part]:
    if learned is None:
        raise InvalidInput(
            f"The merge method {how} learns on a model, and there is none here. Use "
            "`unziplora merge` with --model, or Combine on the page."
        )
    return [(file, 1.0) for file in learned.applied_to(files)]


def _head(file: LoraFile, weight: float) -> tuple[str, float, str, Mapping[str, str]]:
    """What a merged file's header keeps of a part."""
    return file.path.stem, weight, tensor_hash(file.path), file.metadata


def _plain(file: LoraFile) -> LoraFile:
    check_readable(file)
    left = [f"{n} {kind} modules" for kind, n in file.kinds.items() if kind != LoraLayer.kind]
    left += [f"{n} {what}" for what, n in file.left_out.items() if what.startswith("modules")]
    if left:
        raise InvalidInput(
            f"{file.path.name} has {', '.join(left)}, which cannot be merged here without losing "
            "it. Use plain LoRAs, such as ours."
        )
    return file


def _sum(target: Target, files: Sequence[_Part], method: MergeMethod, mu: float) -> LoraLayer:
    """One module's layers side by side, with weights and scales folded into `up`; alpha = rank."""
    layers = _layers_of(target, files)
    if method.projects and len(layers) == 2 and layers[1][1]:  # else there is nothing of the style
        (content, weight), (style, _) = layers
        layers[0] = projected(content, style, mu), weight
    down = torch.cat([layer.down.float() for layer, _ in layers])
    ups = [weight * layer.scale * layer.up.float() for layer, weight in layers]
    return LoraLayer(down, torch.cat(ups, dim=1), float(down.shape[0]))


def _layers_of(target: Target, files: Sequence[_Part]) -> list[tuple[LoraLayer, float]]:
    return [
        (layer, weight)
        for file, weight in files
        if isinstance(layer := file.adapters.get(target), LoraLayer)
    ]


def _check_sizes(target: Target, layers: Sequence[LoraLayer]) -> None:
    if len({(layer.up.shape[0], *layer.down.shape[1:]) for layer in layers}) > 1:
        raise InvalidInput(
            f"The layer {target.module} has another size in the other file. "
            "Merge LoRAs of one architecture."
        )


def _as_module(target: Target, layer: LoraLayer) -> LoraLayer:
    """With the dimensions of the module's weight: kohya's scripts load nothing else into the
    family's only convolutions of 1 x 1."""
    if not target.module.endswith("skip_connection") or layer.down.dim() > 2:
        return layer
    return LoraLayer(layer.down[:, :, None, None], layer.up[:, :, None, None], layer.alpha)


def _padded(layer: LoraLayer, rank: int) -> LoraLayer:
    """The same change at a larger rank; alpha = rank."""
    more = rank - layer.rank
    down = torch.cat([layer.down, layer.down.new_zeros(more, *layer.down.shape[1:])])
    up = layer.up
    up = torch.cat([up, up.new_zeros(up.shape[0], more, *up.shape[2:])], dim=1)
    return LoraLayer(down, up, float(rank))
