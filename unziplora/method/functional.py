"""The paper's equations as pure functions of tensors, with its symbols, one line each.

For one frozen linear layer with weight W0 (out, in), torch's layout, branch b (c: content,
s: style) has A (r, in), B (out, r), so that dW = B A; a hard mask h (out,) in {0, 1} and a soft
merger m (out,) in [0, 1]. The paper's "columns" are the output axis: rows of torch's weight, rows
of B. W0 x and dW x are (..., tokens, out) for x (..., tokens, in).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def separated_output(W0x: Tensor, deltas: Iterable[Tensor]) -> Tensor:
    """Eq. 3: W0 x + dW_c x_c + dW_s x_s, in W0 x's dtype. deltas: each branch's, of its input."""
    return sum((delta.to(W0x.dtype) for delta in deltas), W0x)


def branch_delta(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Eq. 4: m_b dW_b x_b = B (A x), in x's dtype, with the mask in B; never forms B A."""
    return F.linear(F.linear(x, A.to(x.dtype)), B.to(x.dtype))


def masked_up(B: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
    """Eq. 4: the column mask of dW multiplied into B, (out, r): the same product, out*r numbers
    instead of tokens*out. mask: (out,), the effective one. scale: alpha / r, and a weight."""
    return (scale * mask)[:, None] * B


def effective_mask(h: Tensor, m: Tensor) -> Tensor:
    """Eq. 4's m_b (out,): the paper's one mask is the product of what is open and how much."""
    return m * h


def joined(As: Sequence[Tensor], Bs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A (n r, in) and B (out, n r) of the sum of n branches that read one input."""
    return (torch.cat(list(As)), torch.cat(list(Bs), dim=1)) if len(As) > 1 else (As[0], Bs[0])


@torch.no_grad()
def column_magnitude(A: Tensor, B: Tensor, gate: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """Importance (sec. 3.3.2; Cones, sec. 3.2): |dW * dL/d(dW)| summed over each column, (out,).

    gate: (out,), the factor between dW x and the layer's output. grad: (..., tokens, out), of that
    output. The dense (out, in) matrices exist on measuring steps only.
    """
    return (B.float() @ A.float()).mul_(dense_gradient(gate, grad, x)).abs_().sum(dim=1)


def dense_gradient(gate: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """dL/d(dW), (out, in), fp32, from the gradient of the output gate * (dW x)."""
    return gate[:, None] * (grad.flatten(0, -2).T.float() @ x.flatten(0, -2).float())


def signed_importance(B: Tensor, B_grad: Tensor) -> Tensor:
    """First-order effect of each column: the row sum of B * dL/dB, (out,). Equal to dL/dm where the
    merger m is 1."""
    return (B.detach() * B_grad).sum(dim=1)


def overlap(m_c: Tensor, m_s: Tensor) -> Tensor:
    """The terms of eq. 5, |m_c * m_s| for each column, of effective masks."""
    return (m_c * m_s).abs()


def orthogonality(m_c: Tensor, m_s: Tensor) -> Tensor:
    """Eq. 5 as printed: |m_c * m_s| summed over all columns."""
    return overlap(m_c, m_s).sum()


def mean_orthogonality(m_c: Tensor, m_s: Tensor, columns: Sequence[int]) -> Tensor:
    """Eq. 5 as in the authors' code: the mean over each layer's columns, then over layers, with
    which lambda = 0.5 is a sensible weight. columns: how many of m_c each layer has, in order."""
    widths = torch.tensor(columns, device=m_c.device)
    # with its size named, a GPU need not be waited for
    spread = widths.repeat_interleave(widths, output_size=len(m_c))
    return (overlap(m_c, m_s) / spread).sum() / len(columns)
