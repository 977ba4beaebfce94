"""Encode the shards once: `python -m mini_world.latents --run-dir DIR`.

latents/NNNN.npy holds (2, SHARD, 4, 16, 16) float16: each picture and its mirror image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from mini_world.vae import encode


def encode_shard(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    both = []
    for mirrored in (False, True):
        parts = []
        for i in range(0, len(pictures), 25):
            batch = np.array(pictures[i : i + 25])
            batch = batch[:, :, ::-1] if mirrored else batch
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(encode(vae, batch).float().numpy().astype(np.float16))
        both.append(np.concatenate(parts))
    return np.stack(both)


class Latents:
    """All encoded shards and their captions in memory; it grows when shards are added."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir
        self._known: set[str] = set()
        self.latents = np.zeros((0, 2, 4, 16, 16), np.float16)
        self.captions: list[list[str]] = []
        self.refresh()

    def refresh(self) -> None:
        for path in sorted((self._folder / "latents").glob("[0-9][0-9][0-9][0-9].npy")):
            if path.stem in self._known:
                continue
            self._known.add(path.stem)
            self.latents = np.concatenate([self.latents, np.load(path).transpose(1, 0, 2, 3, 4)])
            told = json.loads((self._folder / "pictures" / f"{path.stem}.json").read_text())
            self.captions += [facts["captions"] for facts in told]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str]]:
        """Scaled latents (count, 4, 16, 16) and a caption for each."""
        chosen = rng.integers(0, len(self.captions), count)
        latents = self.latents[chosen, rng.integers(0, 2, count)].astype(np.float32)
        captions = [self.captions[i][int(rng.integers(4))] for i in chosen]
        return torch.from_numpy(latents), captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    run_dir: Path = parser.parse_args().run_dir
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    folder = run_dir / "latents"
    folder.mkdir(exist_ok=True)
    for path in sorted((run_dir / "pictures").glob("[0-9][0-9][0-9][0-9].npy")):
        if (folder / path.name).exists():
            continue
        part = folder / f"{path.stem}.part.npy"
        np.save(part, encode_shard(vae, np.load(path, mmap_mode="r")))
        part.rename(folder / path.name)
        print(path.stem, flush=True)


if __name__ == "__main__":
    main()
