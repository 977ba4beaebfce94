"""Beyond the paper: how much, and where in the image, one pass trains a branch.

A gate g multiplies the gradients of a branch's own A, B and merger, and nothing else: neither the
forward pass nor what flows back to earlier layers. With a batch of one and one timestep, a number g
is so exactly a weight g of that branch's loss, without a forward pass of its own; a mask g over
positions makes a branch learn from some places of the image only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

Gate = float | Tensor  # a Tensor: (1, tokens, 1)


@dataclass(frozen=True)
class GradientGate:
    """weight: of the branch's loss."""

    weight: float = 1.0

    def at(self, tokens: int) -> Gate:
        """g of a layer that reads so many tokens."""
        return self.weight


def gated_delta(x: Tensor, A: Tensor, B: Tensor, gate: Gate) -> Tensor:
    """Eq. 4's B (A x) in x's dtype, whose A and B get their gradients times g."""
    hidden: Tensor = _GatedLinear.apply(x, A.to(x.dtype), gate)  # type: ignore[no-untyped-call]
    delta: Tensor = _GatedLinear.apply(hidden, B.to(x.dtype), gate)  # type: ignore[no-untyped-call]
    return delta


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
        gated = grad * ctx.gate
        return of_x, gated.flatten(0, -2).T @ x.to(grad).flatten(0, -2), None
