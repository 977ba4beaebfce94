"""Between ComfyUI's IMAGE and MASK (tensors of fractions) and images as training reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage, open_image


def source_image(image: Tensor, mask: Tensor | None = None) -> SourceImage:
    """image: (1, h, w, 3 or 4) in [0, 1]. mask: (1, h, w), 1 where nothing is to be seen, as Load
    Image gives it; another size is scaled, and one that hides nothing does nothing.

    Raises InvalidInput for more than one image.
    """
    if len(image) != 1:
        raise InvalidInput(
            f"Unzip Image trains on one image, and {len(image)} are connected. Choose one of them, "
            "for example with ImageFromBatch."
        )
    pixels = _bytes(image[0])
    if mask is not None and bool((mask > 0).any()):
        seen = 1 - mask[:1].float().clamp(0, 1)
        if seen.shape[1:] != pixels.shape[:2]:
            seen = F.interpolate(seen[None], pixels.shape[:2], mode="bilinear")[0]
        pixels = np.concatenate([pixels[..., :3], _bytes(seen[0])[..., None]], axis=-1)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)
    return open_image(data.getvalue())


def batch(images: Sequence[Image.Image]) -> Tensor:
    """IMAGE (n, h, w, 3) of images of one size."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images]
    return torch.from_numpy(np.stack(arrays))


def _bytes(fractions: Tensor) -> np.ndarray:
    """Rounded: a byte that became a fraction is that byte again."""
    return (fractions.float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
