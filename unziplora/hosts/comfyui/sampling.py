"""Previews by ComfyUI's own sampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from PIL import Image

from unziplora.errors import Interrupted, UnZipLoRAError
from unziplora.hosts.comfyui.program import comfy
from unziplora.images.infotext import KEY, infotext

SAMPLER, SCHEDULER = "euler", "normal"


def draw(
    patcher: Any,
    vae: Any,
    conditions: Sequence[Any],
    size: tuple[int, int],
    steps: int,
    seed: int,
    guidance: float,
) -> Image.Image:
    """conditions: positive and negative CONDITIONING; size: (height, width). Not under
    inference_mode: training goes on with tensors that are made here. Raises Interrupted after the
    user has pressed Cancel."""
    sample = comfy("sample")
    positive, negative = conditions
    latent = torch.zeros(1, 4, size[0] // 8, size[1] // 8)
    noise = sample.prepare_noise(latent, seed)
    try:
        with torch.no_grad():
            drawn = sample.sample(patcher, noise, steps, guidance, SAMPLER, SCHEDULER, positive,
                                  negative, latent, disable_pbar=True, seed=seed)  # fmt: skip
        with torch.inference_mode():
            pixels = vae.decode(drawn)[0].float().cpu()
    except comfy("model_management").InterruptProcessingException as error:
        raise Interrupted("The preview was cancelled in ComfyUI.") from error
    if not torch.isfinite(pixels).all():
        raise UnZipLoRAError(
            "The image came out as NaN, from the model or the VAE. Start ComfyUI with "
            "--fp32-vae, or load another VAE."
        )
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def described(
    image: Image.Image,
    prompt: str,
    negative: str,
    steps: int,
    seed: int,
    guidance: float,
    model: str,
) -> Image.Image:
    """The same, with how it was made."""
    words = {
        "Steps": steps,
        "Sampler": SAMPLER,
        "Schedule type": SCHEDULER,
        "CFG scale": f"{guidance:g}",
        "Seed": seed,
        "Size": f"{image.width}x{image.height}",
        "Model": PurePath(model).stem,
    }
    image.info[KEY] = infotext(prompt, negative, words)
    return image
