"""Encode the shards once: `python -m mini_world.latents --run-dir DIR`.

latents/NNNN.npy holds (SHARD, 4, 16, 16) float16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL

from mini_world.precision import fast
from mini_world.shard_files import load_latents, save_array, shards_in
from mini_world.vae import encode


def encode_shard(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    parts = []
    for i in range(0, len(images), 25):
        with fast("cpu"):
            parts.append(encode(vae, images[i : i + 25]).float().numpy().astype(np.float16))
    return np.concatenate(parts)


class Latents:
    """All encoded shards and what each image shows (shards.facts), in memory."""

    def __init__(self, run_dir: Path) -> None:
        self.latents, self.facts = load_latents(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    run_dir: Path = parser.parse_args().run_dir
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    folder = run_dir / "latents"
    folder.mkdir(exist_ok=True)
    for path in shards_in(run_dir / "core"):
        if not (folder / path.name).exists():
            save_array(folder / path.name, encode_shard(vae, np.load(path, mmap_mode="r")))
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
