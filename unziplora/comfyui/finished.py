"""Runs that ComfyUI has done before, found by what decides their result.

ComfyUI's own cache ends with its process. So each run's folder notes a key of model, image and
settings: queued again, a run that has ended gives its files at once, and one that was cancelled
continues.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from unziplora import files
from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage
from unziplora.lora.metadata import info_of
from unziplora.lora.pair import Pair, find_pair, find_pairs
from unziplora.lora.tensor_file import read_metadata
from unziplora.training.destination import check_name_free, new_run_folder
from unziplora.training.run_folder import RunFolder, RunInfo
from unziplora.training.settings import ResolvedSettings

_NOTE = "comfyui.json"
_NO_MATTER = ("name", "preview_every", "preview_steps", "preview_prompt", "preview_negative",
              "preview_sampler", "preview_guidance", "preview_width", "preview_height",
              "preview_snapshots", "save_minutes", "snapshot_every", "keep_state",
              "image_on_cards")  # fmt: skip


def key_of(model: str, image: SourceImage, settings: ResolvedSettings, name: str | None) -> str:
    """model: `ComfyHost.digest`; settings: what a run does; name: as far as the user chose one."""
    decides = {k: v for k, v in asdict(settings).items() if k not in _NO_MATTER}
    pixels = np.asarray(image.image)
    digest = hashlib.sha256(pixels.tobytes())
    digest.update(json.dumps([model, pixels.shape, decides, name], sort_keys=True).encode())
    return digest.hexdigest()


def note(folder: RunFolder, key: str) -> None:
    """Keeps the key beside the run. Raises WriteError."""
    files.write_text(folder.path / _NOTE, json.dumps({"key": key}) + "\n")


def earlier_runs(runs: Path, out: Path, key: str) -> list[tuple[RunFolder, RunInfo]]:
    """The runs of this key, the latest first. runs: the folder with their folders; out: where
    their pairs go."""
    found = []
    for path in runs.glob(f"*/{_NOTE}"):
        folder = RunFolder(path.parent, out)
        if _key_in(path) == key:
            try:
                found.append((folder, folder.read_info()))
            except InvalidInput:  # damaged, or of another version: it is trained again
                continue
    return sorted(found, key=lambda run: -run[1].started)


def pair_of(folder: RunFolder, info: RunInfo) -> Pair | None:
    """The files that a run ended with, also under another name; None where there are none."""
    return next((pair for pair in _candidates(folder, info) if _is_of(pair, info)), None)


def free_name(out: Path, runs: Path, name: str) -> str:
    """`name`, or NAME-2, NAME-3 and so on, where neither a pair nor a run has it."""
    for number in itertools.count(1):
        numbered = name if number == 1 else f"{name}-{number}"
        try:
            check_name_free(new_run_folder(out, numbered, runs), numbered)
        except InvalidInput:
            continue
        return numbered
    raise AssertionError("itertools.count ends never")


def _candidates(folder: RunFolder, info: RunInfo) -> Iterator[Pair]:
    named = find_pair(folder.out, info.settings.name)
    if named is not None:
        yield named
    yield from find_pairs(folder.out)


def _is_of(pair: Pair, info: RunInfo) -> bool:
    return info_of(read_metadata(pair.content)).pair == info.pair


def _key_in(path: Path) -> str | None:
    try:
        said = json.loads(path.read_text("utf-8"))
        return said["key"] if isinstance(said, dict) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
