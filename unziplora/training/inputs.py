"""What training needs of an image and three prompts, encoded by the host once for a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import Host, SizeIds
from unziplora.images.load import SourceImage, fit
from unziplora.method.prompts import PROMPTS
from unziplora.training.settings import ResolvedSettings
from unziplora.training.subject_mask import mask_of_latents

CHANNELS = 4  # of SDXL's latents


@dataclass(frozen=True)
class TrainingInputs:
    """latents: (1 or 2, 4, h, w), the image and, where flips are on, its mirror image.
    context: (3, tokens, width) and pooled: (3, width), in the order of PROMPTS, and behind
    them those of the settings' `leak_prompts`. mask: (1 or 2, 1, h, w) in [0, 1], of the subject,
    where content is to learn from it only.
    """

    latents: Tensor
    context: Tensor
    pooled: Tensor
    sizes: SizeIds
    mask: Tensor | None = None

    @classmethod
    def encode(cls, host: Host, settings: ResolvedSettings, image: SourceImage) -> TrainingInputs:
        """Raises InvalidInput where the model encodes to what could be trained on, but not
        restored from a state: latents of another number of channels, or numbers that are NaN."""
        fitted = fit(image, settings.resolution, settings.crop)
        prompts = [settings.prompts.text(name) for name in PROMPTS]
        prompts += settings.leak_prompts.values()
        context, pooled = host.encode_prompts(prompts)
        drawn = torch.Generator().manual_seed(settings.seed)
        generator = drawn if settings.latent == "sample" else None
        sides = [fitted.pixels, fitted.pixels.flip(-1)] if settings.flip else [fitted.pixels]
        latents = torch.cat([host.encode_image(pixels, generator) for pixels in sides])
        mask = None
        if settings.mask_content != "off":
            mask = mask_of_latents(fitted.mask, latents).to(latents.device)
            mask = torch.cat([mask, mask.flip(-1)]) if settings.flip else mask
        inputs = cls(latents.float(), context, pooled, fitted.sizes, mask)
        try:
            inputs.check()
        except ValueError as error:
            raise InvalidInput(
                f"The model cannot be trained on, because {error}. "
                "Choose an SDXL checkpoint with its own VAE and text encoders."
            ) from error
        return inputs

    def tensors(self) -> dict[str, Tensor]:
        """What a state keeps; not copies."""
        kept = {"latents": self.latents, "context": self.context, "pooled": self.pooled}
        return kept if self.mask is None else {**kept, "mask": self.mask}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: torch.device
    ) -> TrainingInputs:
        """What a saved state holds of it. Raises KeyError, TypeError, AttributeError or ValueError
        where it does not."""
        sizes = SizeIds(**{name: tuple(value) for name, value in numbers["sizes"].items()})
        for pair in asdict(sizes).values():
            if len(pair) != 2 or not all(type(side) is int and side >= 0 for side in pair):
                raise ValueError(f"sizes are {pair}")
        # Copied: a file's tensors lie unaligned in memory, where products round differently.
        latents, context, pooled = (
            tensors[name].to(device, copy=True) for name in ("latents", "context", "pooled")
        )
        mask = tensors["mask"].to(device, copy=True) if "mask" in tensors else None
        inputs = cls(latents, context, pooled, sizes, mask)
        inputs.check()
        return inputs

    def check(self) -> None:
        """Raises ValueError where shapes or numbers are not those of SDXL's family."""
        latents, context, pooled = self.latents, self.context, self.pooled
        if latents.dim() != 4 or latents.shape[1] != CHANNELS:
            raise ValueError(f"its latents have the shape {tuple(latents.shape)}")
        if context.dim() != 3 or pooled.dim() != 2:
            raise ValueError(f"its embeddings are {tuple(context.shape)}, {tuple(pooled.shape)}")
        if not len(context) == len(pooled) >= len(PROMPTS):
            raise ValueError(f"it has {len(context)} embeddings of {len(PROMPTS)} prompts")
        mask = latents[:, :1] if self.mask is None else self.mask
        if mask.shape != latents[:, :1].shape:
            raise ValueError(f"its mask has the shape {tuple(mask.shape)}")
        for tensor in (latents, context, pooled, mask):
            if not (tensor.numel() and tensor.is_floating_point() and tensor.isfinite().all()):
                raise ValueError("its encodings are not finite numbers")
