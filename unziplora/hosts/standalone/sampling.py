"""The model's noise schedule, diffusers' sampler on it, and latents to and from images."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor, nn

from unziplora.checkpoints.identify import ModelFile

SAMPLER = "Euler"

_SDXL_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def alphas_cumprod(file: ModelFile) -> Tensor:
    """The model's own schedule, (T,) in fp32; its last value is 0 for a zero-terminal-SNR model
    (arXiv 2305.08891, algorithm 1)."""
    scheduler = DDPMScheduler(**_betas(file), rescale_betas_zero_snr=file.zero_snr)
    alphas: Tensor = scheduler.alphas_cumprod.float()
    return alphas


def euler(file: ModelFile) -> Any:
    """diffusers' Euler scheduler for the model's schedule and prediction."""
    return EulerDiscreteScheduler(
        **_betas(file),
        prediction_type=file.prediction_type,
        rescale_betas_zero_snr=file.zero_snr,
        # pure noise is seen only where the last timestep is among the sampled ones
        timestep_spacing="trailing" if file.zero_snr else "leading",
        steps_offset=1,
    )


def _betas(file: ModelFile) -> dict[str, Any]:
    return {**_SDXL_BETAS, **file.schedule}


def bare_pipeline(unet: nn.Module, scheduler: Any = None) -> Any:
    """diffusers' SDXL pipeline around a UNet alone: text and VAE stay with the host."""
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


@torch.no_grad()
def sample(
    unet: nn.Module,
    embeddings: tuple[Tensor, Tensor],
    *,
    file: ModelFile,
    dtype: torch.dtype,
    size: tuple[int, int],
    steps: int,
    seed: int,
    guidance: float,
) -> Tensor:
    """Scaled latents (1, 4, h/8, w/8) of an image of (height, width) = size.

    embeddings: context (2, 77, width) and pooled (2, width) of the prompt and the negative one.
    """
    (prompt, negative), (pooled, negative_pooled) = (torch.split(e, 1) for e in embeddings)
    pipeline = bare_pipeline(unet, euler(file))
    pipeline.set_progress_bar_config(disable=True)
    device = prompt.device
    # none at all in fp32, which torch 2.1 refuses on a CPU even where it is not enabled
    cast = nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)
    with cast:
        latents: Tensor = pipeline(
            prompt_embeds=prompt.to(dtype),
            pooled_prompt_embeds=pooled.to(dtype),
            negative_prompt_embeds=negative.to(dtype),
            negative_pooled_prompt_embeds=negative_pooled.to(dtype),
            height=size[0],
            width=size[1],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).images
    return latents


def scaled(latents: Tensor, config: Any) -> Tensor:
    """The VAE's latents (1, 4, h, w) as the UNet sees them; config: the VAE's."""
    mean, std = _statistics(config, latents)
    scale: float = config.scaling_factor
    return (latents - mean) / std * scale


def unscaled(latents: Tensor, config: Any) -> Tensor:
    """The inverse of `scaled`."""
    mean, std = _statistics(config, latents)
    scale: float = config.scaling_factor
    return latents / scale * std + mean


def _statistics(config: Any, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return 0.0, 1.0
    return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(std).view(1, -1, 1, 1)


def image(pixels: Tensor) -> Image.Image:
    """Of pixels (1, 3, h, w) in [-1, 1]."""
    values = ((pixels[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
