"""Encode the core shards once: `python -m mini_world.emoji.latents --run-dir DIR`.

latents/NNNN.npy holds (SHARD, 4, 16, 16) float16 beside the VAE's fingerprint: latents of another
VAE are made again.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from mini_world.shard_files import load_latents, save_array, shards_in
from mini_world.vae import pixels


def fingerprint(vae: AutoencoderKL) -> str:
    """Of the encoder's weights: what latents depend on."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, batch: int = 20) -> np.ndarray:
    """Scaled latents (n, 4, 16, 16) float16 of (n, 128, 128, 3) uint8: the posterior's mean."""
    device, parts = next(vae.parameters()).device, []
    for i in range(0, len(images), batch):
        x = pixels(images[i : i + batch]).to(device).contiguous(memory_format=torch.channels_last)
        z = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
        parts.append(z.cpu().numpy().astype(np.float16))
    return np.concatenate(parts)


class Latents:
    """All encoded shards and what each image shows (shards.facts), in memory."""

    def __init__(self, run_dir: Path) -> None:
        self.values, self.facts = load_latents(run_dir)


def encode_new(run_dir: Path, device: str = "cpu") -> int:
    """Encode every core shard that has no latents of the present VAE yet; their number."""
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    vae.to(device, memory_format=torch.channels_last)
    folder, mark = run_dir / "latents", fingerprint(vae)
    folder.mkdir(exist_ok=True)
    known = folder / "vae.txt"
    if not known.exists() or known.read_text() != mark:
        for old in folder.glob("*.npy"):
            old.unlink()
        known.write_text(mark)
    new = [path for path in shards_in(run_dir / "core") if not (folder / path.name).exists()]
    for path in new:
        save_array(folder / path.name, encode(vae, np.load(path, mmap_mode="r")))
    return len(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(encode_new(args.run_dir, args.device), "shards encoded")


if __name__ == "__main__":
    main()
