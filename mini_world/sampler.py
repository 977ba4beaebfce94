"""Many images at once from a host's model: for gates, the block probe and the judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mini_world.precision import fast
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.hosts.standalone.sampling import bare_pipeline, euler, scaled, unscaled

BATCH = 16


class Sampler:
    """Images of a StandaloneHost's model; the VAE stays in memory, embeddings are remembered.

    Computed in bfloat16 where the machine has it: many images are wanted, and such a CPU makes
    them in half the time. A decoded image differs by a third of one of 255 levels.
    """

    def __init__(self, host: StandaloneHost, steps: int = 16) -> None:
        self.host, self.steps, self.guidance = host, steps, host.defaults.usual_guidance
        self._vae = host._load_vae(host.device)

    def embeddings(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77, width), pooled (n, width)."""
        return self.host.encode_prompts(list(prompts))

    @torch.no_grad()
    def images(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """(n, side, side, 3) uint8, one for each prompt and its seed."""
        parts = []
        for i in range(0, len(prompts), BATCH):
            with fast(self.host.device):
                parts.append(self._batch(prompts[i : i + BATCH], seeds[i : i + BATCH]))
        return np.concatenate(parts)

    def _batch(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        context, pooled = self.embeddings(prompts)
        none, none_pooled = self.embeddings([""])
        pipeline = bare_pipeline(self.host.unet, euler(self.host.file))
        pipeline.set_progress_bar_config(disable=True)
        side, n = self.host.defaults.resolution, len(prompts)
        latents = pipeline(
            prompt_embeds=context,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=none.expand(n, -1, -1),
            negative_pooled_prompt_embeds=none_pooled.expand(n, -1),
            height=side,
            width=side,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).images
        return self.decode(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """(n, 8h, 8w, 3) uint8 of scaled latents (n, 4, h, w)."""
        pixels = self._vae.decode(unscaled(latents, self._vae.config)).sample
        return (
            ((pixels.float().permute(0, 2, 3, 1).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        )

    @torch.no_grad()
    def through_vae(self, images: np.ndarray) -> np.ndarray:
        """What the VAE makes of images (n, h, w, 3): encoded and decoded again."""
        parts = []
        for i in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[i : i + BATCH]).permute(0, 3, 1, 2) / 127.5 - 1
            latents = scaled(self._vae.encode(pixels).latent_dist.mean, self._vae.config)
            parts.append(self.decode(latents))
        return np.concatenate(parts)
