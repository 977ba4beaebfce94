"""Shards on disk: NNNN.npy with images or latents, beside NNNN.json with what each image shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def shards_in(folder: Path) -> list[Path]:
    """The whole ones, in order."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9].npy"))


def save_array(path: Path, array: np.ndarray) -> None:
    """A shard that has its name is whole."""
    unfinished = path.with_suffix(".part.npy")
    np.save(unfinished, array)
    unfinished.rename(path)


def save_shard(folder: Path, number: int, images: np.ndarray, facts: list[dict[str, Any]]) -> None:
    """images: (n, side, side, 3) uint8; facts: of each image."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:04d}.json").write_text(json.dumps(facts))
    save_array(folder / f"{number:04d}.npy", images)


def load_latents(run_dir: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """All encoded shards, (n, 4, 16, 16) float16, and the facts of each image. Raises
    FileNotFoundError where there are none."""
    found = shards_in(run_dir / "latents")
    if not found:
        raise FileNotFoundError(f"No latents in {run_dir}. Encode the shards first.")
    facts = [json.loads((run_dir / "core" / f"{path.stem}.json").read_text()) for path in found]
    return np.concatenate([np.load(path) for path in found]), [
        one for part in facts for one in part
    ]
