"""How an encoder wants its images: resize, crop, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Preprocess:
    """resize: the shorter side, in pixels; crop: the side of the centre square; mean and std: of
    RGB in [0, 1]."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, 3, crop, crop), normalised."""
        return torch.stack([self._one(image.convert("RGB")) for image in images])

    def _one(self, image: Image.Image) -> Tensor:
        # sides and corners as torchvision's Resize and CenterCrop round them
        short = min(image.size)
        size = [max(self.crop, side * self.resize // short) for side in image.size]
        kind = Image.Resampling[self.interpolation.upper()]
        scaled = image.resize((size[0], size[1]), kind)
        left, top = (round((side - self.crop) / 2) for side in size)
        square = scaled.crop((left, top, left + self.crop, top + self.crop))
        pixels = torch.from_numpy(np.array(square, np.float32)) / 255
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


# Each as its authors evaluate: openai/CLIP clip.py; facebookresearch/dino eval_knn.py;
# learn2phoenix/CSD main_sim.py (CSD sets CLIP's crop and ImageNet's statistics on resize 256).
CLIP = Preprocess(224, 224, *_CLIP)
DINO = Preprocess(256, 224, *_IMAGENET)
CSD = Preprocess(256, 224, *_IMAGENET)
EFFICIENTNET_LITE = Preprocess(256, 224, (0.498, 0.498, 0.498), (0.502, 0.502, 0.502))
