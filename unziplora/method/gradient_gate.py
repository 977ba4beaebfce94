"""Beyond the paper: how much, and where in the image, one pass trains a branch.

A gate g multiplies the gradients of a branch's own A, B and merger, and nothing else: neither the
forward pass nor what flows back to earlier layers. With a batch of one and one timestep, a number g
is so exactly a weight g of that branch's loss, without a forward pass of its own; a mask g over
positions makes a branch learn from some places of the image only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from unziplora.errors import TrainingFailed

Gate = float | Tensor  # a Tensor: (1, tokens, 1)


@dataclass(frozen=True)
class GradientGate:
    """weight: of the branch's loss. masks: (1, tokens, 1) in [0, 1], which positions train the
    branch, by the number of a layer's tokens; without any all do."""

    weight: float = 1.0
    masks: Mapping[int, Tensor] = field(default_factory=dict)

    def at(self, tokens: int, *, reads_text: bool) -> Gate:
        """g of a layer that reads so many tokens; those of a text have no position in the image.

        Raises TrainingFailed where a layer's tokens are not the image's positions.
        """
        if reads_text or not self.masks:
            return self.weight
        if tokens not in self.masks:
            raise TrainingFailed(
                f"A layer reads {tokens} tokens, which are not the positions of the image, so the "
                "mask has no place there. Turn token merging off, or leave out mask_content."
            )
        return self.weight * self.masks[tokens]


def gated_delta(x: Tensor, A: Tensor, B: Tensor, gate: Gate) -> Tensor:
    """Eq. 4's B (A x) in x's dtype, whose A and B get their gradients times g."""
    hidden: Tensor = _GatedLinear.apply(x, A.to(x.dtype), gate)  # type: ignore[no-untyped-call]
    delta: Tensor = _GatedLinear.apply(hidden, B.to(x.dtype), gate)  # type: ignore[no-untyped-call]
    return delta


def times(grad: Tensor, gate: Gate) -> Tensor:
    """g * grad, (..., tokens, out), in grad's dtype."""
    return grad * (gate if isinstance(gate, float) else gate.to(grad.dtype))


class _GatedLinear(Function):
    """W x, (..., tokens, out), with dL/dW = (g * grad)^T x and dL/dx = W^T grad."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, gate: Gate) -> Tensor:
        ctx.save_for_backward(x, W)
        ctx.gate = gate
        return F.linear(x, W)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), (x, W) = grads, ctx.saved_tensors
        of_x = grad @ W.to(grad) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None, None
        gated = times(grad, ctx.gate)
        return of_x, gated.flatten(0, -2).T @ x.to(grad).flatten(0, -2), None
