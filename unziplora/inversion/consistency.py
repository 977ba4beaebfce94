"""Which of several seeds learned best: the pair whose images agree, each with its own kind and not
with the other's (Vinker et al. 2023, arXiv 2305.18203, section 4.2).

    C(content) + C(style) + min(C(content), C(style)) - C(content, style)

C: the mean cosine similarity of images. The paper takes CLIP's image encoder; here it is what the
model's own UNet makes of an image in the middle, so that no other network is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def score(content: Tensor, style: Tensor) -> float:
    """content, style: (images, features), of at least two images each."""
    own = _within(content), _within(style)
    return sum(own) + min(own) - float((_unit(content) @ _unit(style).T).mean())


def _within(features: Tensor) -> float:
    """The mean similarity of two different images."""
    similar = _unit(features) @ _unit(features).T
    count = len(features)
    return float((similar.sum() - similar.diagonal().sum()) / (count * (count - 1)))


def _unit(features: Tensor) -> Tensor:
    centred = features.float() - features.float().mean(dim=1, keepdim=True)
    return F.normalize(centred, dim=1)


@contextlib.contextmanager
def innermost(unet: Any) -> Iterator[list[Tensor]]:
    """While the UNet runs: what its last block on the way down makes, (channels,) of each image,
    the mean over all places. For a UNet in diffusers' layout."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        found.extend(hidden.detach().float().mean(dim=(2, 3)))

    hook = unet.down_blocks[-1].register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
