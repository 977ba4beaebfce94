"""EfficientNet-lite0 in the world of the miniature: nobody here trained it.

Its early features are the VAE's perceptual error; its pooled ones are the second referee.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unziplora.scores.efficientnet import feature_maps, open_network, subject_and_style

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def normalised(images: Tensor) -> Tensor:
    """(n, 3, h, w) in -1..1 as the network was trained on them."""
    mean, deviation = (images.new_tensor(numbers)[:, None, None] for numbers in (_MEAN, _DEVIATION))
    return ((images + 1) / 2 - mean) / deviation


class PerceptualLoss(nn.Module):
    """Squared distance of feature maps, each point's vector normalised (as LPIPS does)."""

    BLOCKS = (0, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.network = open_network()

    def _features(self, images: Tensor) -> list[Tensor]:
        maps = feature_maps(self.network, normalised(images), self.BLOCKS)
        return [F.normalize(features, dim=1) for features in maps]

    def forward(self, decoded: Tensor, truth: Tensor) -> Tensor:
        """Of images (n, 3, h, w) in -1..1."""
        with torch.no_grad():
            expected = self._features(truth)
        pairs = zip(self._features(decoded), expected, strict=True)
        return torch.stack([(a - b).pow(2).sum(1).mean() for a, b in pairs]).sum()


class EncoderJudge:
    """The second referee: who is in an image and how it is made, by a network that nobody here
    trained. Images are (n, h, w, 3) uint8; vectors are unit vectors."""

    name = "EfficientNet-lite0"
    SIDE, BATCH = 224, 16

    def __init__(self) -> None:
        self._network = open_network()
        # the last images, and their vectors: content and style are asked for one after the other
        self._last: tuple[np.ndarray, tuple[Tensor, Tensor]] | None = None

    def content(self, images: np.ndarray) -> Tensor:
        """(n, 1280)."""
        return self._vectors(images)[0]

    def style(self, images: np.ndarray) -> Tensor:
        """(n, d)."""
        return self._vectors(images)[1]

    @torch.no_grad()
    def _vectors(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        if self._last is not None and self._last[0] is images:
            return self._last[1]
        parts = []
        for i in range(0, len(images), self.BATCH):
            pixels = torch.from_numpy(np.array(images[i : i + self.BATCH])).permute(0, 3, 1, 2)
            pixels = F.interpolate(pixels.float(), self.SIDE, mode="bilinear") / 127.5 - 1
            parts.append(subject_and_style(self._network, normalised(pixels)))
        content, style = (F.normalize(torch.cat(part), dim=-1) for part in zip(*parts, strict=True))
        self._last = images, (content, style)
        return content, style
