"""The VAE's errors, its latents, and how they are whitened (emoji/vae.py trains it).

Absolute error of pixels, of their differences, of mean colours and of texture (how strongly fixed
filters answer around a point, wherever exactly the strokes are). After training the latents are
whitened: a linear map of the four channels, folded into the two 1 x 1 convolutions at the
bottleneck, makes them independent with unit deviation at SDXL's own scaling factor.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from mini_world.model import VAE_SCALE

# brightness, red against green, blue against yellow: pixel errors see mostly the first
OPPONENT = torch.tensor([[0.5, 0.5, 0.5], [2.0, -2.0, 0.0], [-1.0, -1.0, 2.0]])
DECODER_NOISE = 0.08  # of the latents' deviation, where only the decoder is trained


def pixels(images: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) in -1..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 127.5 - 1


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
