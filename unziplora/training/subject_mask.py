"""Beyond the paper: content learns from the subject's pixels, style from all of them or the rest.

    gate of content = r + (1 - r) M
    gate of style   = 1 ("subject")   or   r + (1 - r) (1 - M) ("apart")

M is the image's mask, averaged over the patch of each position of a layer; r is `mask_rest`. What a
gate does is in method/gradient_gate.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.method.gradient_gate import GradientGate
from unziplora.method.prompts import BranchName

_LEVELS = (1, 2, 4, 8)  # latents a position, along a side; SDXL attends at 2 and 4


class SubjectMask:
    """The gates of a run's mask. mask: (1 or 2, 1, h, w) of the latents' size, a mirrored one
    second where flips are on. how: "off" is no gate, whatever the mask. rest: r, in [0, 1].

    Raises ValueError where a mask is wanted and there is none.
    """

    def __init__(self, mask: Tensor | None, how: str, rest: float) -> None:
        self._sides: list[dict[BranchName, Mapping[int, Tensor]]] = []
        if how == "off":
            return
        if mask is None:
            raise ValueError("there is no mask")
        for side in torch.split(mask, 1):
            masks: dict[BranchName, Mapping[int, Tensor]] = {"content": by_tokens(side, rest)}
            if how == "apart":
                masks["style"] = by_tokens(1 - side, rest)
            self._sides.append(masks)

    def on(
        self,
        gates: Mapping[BranchName, GradientGate],
        branches: Mapping[BranchName, object],
        side: int,
    ) -> Mapping[BranchName, GradientGate]:
        """The gates of a pass of these branches with the mask's own. side: which of the latents."""
        if not self._sides:
            return gates
        masks = {b: m for b, m in self._sides[side].items() if b in branches}
        with_masks = {b: replace(gates.get(b, GradientGate()), masks=m) for b, m in masks.items()}
        return {**gates, **with_masks}


def by_tokens(mask: Tensor, rest: float) -> dict[int, Tensor]:
    """r + (1 - r) M, (1, tokens, 1), for each size that a layer's positions can have, of a mask
    (1, 1, h, w)."""
    height, width = mask.shape[-2:]
    masks: dict[int, Tensor] = {}
    for latents in _LEVELS:
        grid = (-(-height // latents), -(-width // latents))  # rounded up, as convolutions do
        shown = F.adaptive_avg_pool2d(mask, grid).view(1, -1, 1)
        masks.setdefault(grid[0] * grid[1], rest + (1 - rest) * shown)
    return masks


def check_mask(how: str, mask: object | None) -> None:
    """Raises InvalidInput where a mask is wanted and an image has none."""
    if how != "off" and mask is None:
        raise InvalidInput(
            "mask_content needs an image with a mask, and this one has none. Choose an image that "
            "is transparent around the subject, add a mask image, or leave it out."
        )


def mask_of_latents(mask: Tensor | None, latents: Tensor) -> Tensor:
    """A mask of pixels (1, 1, H, W) averaged over each latent, (1, 1, h, w).

    Raises InvalidInput where there is none, or where it shows all or nothing.
    """
    check_mask("subject", mask)
    assert mask is not None
    small = F.adaptive_avg_pool2d(mask, (latents.shape[-2], latents.shape[-1]))
    if small.min() == 1 or small.max() == 0:
        raise InvalidInput(
            "The mask shows all or nothing of the part of the image that is trained on. Choose "
            "another mask, or leave out mask_content."
        )
    return small
