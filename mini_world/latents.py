"""Encode the shards once: `python -m mini_world.latents --run-dir DIR`.

latents/NNNN.npy holds (SHARD, 4, 16, 16) float16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL

from mini_world.precision import fast
from mini_world.vae import encode


def encode_shard(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    parts = []
    for i in range(0, len(pictures), 25):
        with fast("cpu"):
            parts.append(encode(vae, pictures[i : i + 25]).float().numpy().astype(np.float16))
    return np.concatenate(parts)


class Latents:
    """All encoded shards and what each picture shows (shards.facts), in memory."""

    def __init__(self, run_dir: Path) -> None:
        found = sorted((run_dir / "latents").glob("[0-9][0-9][0-9][0-9].npy"))
        self.latents = np.concatenate([np.load(path) for path in found])
        self.facts: list[dict[str, Any]] = [
            facts
            for path in found
            for facts in json.loads((run_dir / "core" / f"{path.stem}.json").read_text())
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    run_dir: Path = parser.parse_args().run_dir
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    folder = run_dir / "latents"
    folder.mkdir(exist_ok=True)
    for path in sorted((run_dir / "core").glob("[0-9][0-9][0-9][0-9].npy")):
        if (folder / path.name).exists():
            continue
        part = folder / f"{path.stem}.part.npy"
        np.save(part, encode_shard(vae, np.load(path, mmap_mode="r")))
        part.rename(folder / path.name)
        print(path.stem, flush=True)


if __name__ == "__main__":
    main()
