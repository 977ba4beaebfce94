"""Train the VAE: `python -m mini_world.vae --run-dir DIR --minutes 15`; goes on where it stopped.

Random 64 px crops of the shards; absolute error of pixels, of their differences, of mean colours
and of texture (how strongly fixed filters answer around a point, wherever exactly the strokes are),
a trace of KL.
Now and then the colour channels are swapped or inverted, so that colours nobody drew are encoded
too. Afterwards the latents are whitened: a linear map of the four channels, folded into the two
1 x 1 convolutions at the bottleneck, makes them independent with unit deviation at SDXL's own
scaling factor.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from mini_world.model import VAE_SCALE, new_vae
from mini_world.precision import fast

# brightness, red against green, blue against yellow: pixel errors see mostly the first
OPPONENT = torch.tensor([[0.5, 0.5, 0.5], [2.0, -2.0, 0.0], [-1.0, -1.0, 2.0]])
DECODER_NOISE = 0.08  # of the latents' deviation, where only the decoder is trained
CROP, BATCH, KL = 64, 16, 1e-4


def shards(run_dir: Path) -> list[np.ndarray]:
    """Every finished shard, mapped: (2000, 128, 128, 3) uint8 each; the wide ones first."""
    wide, core = (
        sorted((run_dir / kind).glob("[0-9][0-9][0-9][0-9].npy")) for kind in ("wide", "core")
    )
    found = [*wide, *core]
    return [np.load(path, mmap_mode="r") for path in found]


def pixels(images: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) in -1..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 127.5 - 1


def crops(images: list[np.ndarray], rng: np.random.Generator, count: int = BATCH) -> Tensor:
    taken = []
    for _ in range(count):
        shard = images[rng.integers(len(images))]
        y, x = rng.integers(0, 128 - CROP + 1, 2)
        crop = shard[rng.integers(len(shard)), y : y + CROP, x : x + CROP]
        if rng.random() < 0.25:
            crop = crop[..., rng.permutation(3)]
            crop = 255 - crop if rng.random() < 0.5 else crop
        taken.append(crop)
    return pixels(np.stack(taken))


class ReconstructionLoss(nn.Module):
    """Pixels and their differences point by point; texture by its strength in 8 x 8 pixels; the
    mean colour there once more, because it is what the narrow norms lose first."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        filters = torch.randn(32, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        filters -= filters.mean((2, 3), keepdim=True)
        norms = filters.flatten(1).norm(dim=1)[:, None, None, None]
        self.register_buffer("filters", filters / norms)

    def texture(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(images, self.filters).abs(), 8, 4)

    def forward(self, decoded: Tensor, truth: Tensor) -> Tensor:
        error = decoded - truth
        across = (error[..., 1:] - error[..., :-1]).abs().mean()
        down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        texture = (self.texture(decoded) - self.texture(truth)).abs().mean()
        colour = (
            torch.einsum("oc,nchw->nohw", OPPONENT.to(error), F.avg_pool2d(error, 8, 4))
            .abs()
            .mean()
        )
        return error.abs().mean() + 0.5 * (across + down) + texture + 2 * colour


@torch.no_grad()
def near(latents: Tensor, share: float = DECODER_NOISE) -> Tensor:
    """Latents with a trace of noise, alike in all their directions: a UNet's are never exact."""
    flat = latents.float().movedim(1, -1).reshape(-1, 4)
    spread = torch.linalg.cholesky(flat.T.cov() + 1e-6 * torch.eye(4, device=flat.device))
    noise = torch.randn_like(flat) @ spread.T * share
    return latents + noise.view(latents.movedim(1, -1).shape).movedim(-1, 1)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray) -> Tensor:
    """Scaled latents (n, 4, 16, 16) of (n, 128, 128, 3) uint8: the posterior's mean."""
    return vae.encode(pixels(images)).latent_dist.mode() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> np.ndarray:
    """(n, 128, 128, 3) uint8 of scaled latents."""
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    return (decoded.permute(0, 2, 3, 1).clamp(-1, 1) * 127.5 + 127.5).round().byte().numpy()


def save(vae: AutoencoderKL, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
    part.replace(path)


def train(run_dir: Path, minutes: float, rate: float, frozen_encoder: bool) -> None:
    torch.set_num_threads(2)
    vae = new_vae()
    # reads mean colours off the latents, linearly; thrown away afterwards
    colours = nn.Conv2d(4, 3, 1)
    optimizer = torch.optim.AdamW(
        [*vae.parameters(), *colours.parameters()],
        rate,
        betas=(0.9, 0.98),
        weight_decay=0,
        fused=True,
    )
    state_path, step = run_dir / "vae.pt", 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if frozen_encoder:  # latents stay what they are: only how they are drawn improves
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    images, error = shards(run_dir), ReconstructionLoss()
    rng = np.random.default_rng((3, step))
    start, spent, shown = time.monotonic(), 0.0, 0.0
    total, seen = 0.0, 0
    while spent < minutes:
        warm = min(1.0, (spent + 0.02) / 0.4)
        cool = 0.5 * (1 + np.cos(np.pi * min(spent / minutes, 1)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate * warm * (0.03 + 0.97 * cool))
        truth = crops(images, rng).contiguous()
        with fast("cpu"):
            posterior = vae.encode(truth).latent_dist
            latents = near(posterior.mode()) if frozen_encoder else posterior.sample()
            decoded = vae.decode(latents).sample
        loss = error(decoded.float(), truth)
        shift = colours(latents.float()) - F.avg_pool2d(truth, 8)
        loss = loss + torch.einsum("oc,nchw->nohw", OPPONENT, shift).abs().mean()
        kl = posterior.kl().float().mean() / (4 * (CROP // 8) ** 2)  # per latent number
        (loss + KL * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, total, seen = step + 1, total + float(loss.detach()), seen + 1
        spent = (time.monotonic() - start) / 60
        if spent - shown > 1 or spent >= minutes:
            print(f"{spent:.1f} min, step {step}, loss {total / seen:.4f}, kl {kl:.3f}", flush=True)
            shown, total, seen = spent, 0.0, 0
            save(vae, optimizer, step, state_path)
    finish(vae, images, run_dir)


def finish(vae: AutoencoderKL, images: list[np.ndarray], run_dir: Path) -> None:
    """Write vae/ as a diffusers folder with white latents, and an image before and after.

    What vae.pt holds stays as trained; whitening is worked out anew from it, always the same.
    """
    vae.eval()
    whiten(vae, images[0][:500])
    vae.save_pretrained(run_dir / "vae")
    show(vae, images[-1][:24], run_dir / "vae.png")


@torch.no_grad()
def whiten(vae: AutoencoderKL, images: np.ndarray) -> None:
    """Fold (z - mean) @ map into quant_conv and its inverse into post_quant_conv."""
    parts = [encode(vae, images[i : i + 50]) for i in range(0, len(images), 50)]
    raw = torch.cat(parts).movedim(1, -1).reshape(-1, 4).double() / VAE_SCALE
    mean, (values, vectors) = raw.mean(0), torch.linalg.eigh(raw.T.cov())
    # rotated back after scaling: each channel stays as near as can be to what it was
    white = vectors @ torch.diag(values.rsqrt()) @ vectors.T / VAE_SCALE
    back = torch.linalg.inv(white)
    into, out = vae.quant_conv, vae.post_quant_conv
    weight, bias = into.weight[:4, :, 0, 0].double(), into.bias[:4].double()
    into.weight[:4] = (white @ weight)[..., None, None].float()
    into.bias[:4] = (white @ (bias - mean)).float()
    weight = out.weight[:, :, 0, 0].double()
    out.bias += (weight @ mean).float()
    out.weight.copy_((weight @ back)[..., None, None])
    # the posterior's deviation: the same small one everywhere, 0.02 of a latent's
    into.weight[4:] = 0
    into.bias[4:] = 2 * math.log(0.02 / VAE_SCALE)
    print("eigenvalues of the raw latents' covariance", [round(float(v), 4) for v in values])


def show(vae: AutoencoderKL, truth: np.ndarray, path: Path) -> None:
    decoded = decode(vae, encode(vae, truth))
    error = np.abs(decoded.astype(float) - truth).mean() / 255
    print(f"mean absolute error of whole images {error:.4f} (0..1)")
    rows = [
        np.concatenate(list(p[i : i + 8]), 1) for i in range(0, 24, 8) for p in (truth, decoded)
    ]
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--frozen-encoder", action="store_true")
    a = parser.parse_args()
    train(a.run_dir, a.minutes, a.rate, a.frozen_encoder)


if __name__ == "__main__":
    main()
