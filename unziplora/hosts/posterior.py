"""From a VAE's posterior to latents, for every host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unziplora.errors import UnZipLoRAError


def latents_of(posterior: Any, generator: torch.Generator | None) -> Tensor:
    """The mean of a posterior with `mean` and `std` (1, 4, h/8, w/8), or a sample drawn with a CPU
    generator; fp32, unscaled."""
    latents: Tensor = posterior.mean.float()
    if generator is not None:
        noise = torch.randn(latents.shape, generator=generator)
        latents = latents + posterior.std.float() * noise.to(latents.device)
    return latents


def checked(latents: Tensor, remedy: str) -> Tensor:
    """The same. remedy: how another VAE is chosen in this program. Raises UnZipLoRAError where the
    VAE made NaN or infinity."""
    if not torch.isfinite(latents).all():
        raise UnZipLoRAError(f"The VAE makes NaN of this image. {remedy}")
    return latents
