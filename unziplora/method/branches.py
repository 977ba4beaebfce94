"""Two low-rank branches beside a frozen linear layer (paper, eqs. 3 and 4), always factored.

    delta_b(x) = (alpha / r) * (h_b * m_b) * (B_b (A_b x))
    y = W0 x + delta_content(x_content) + delta_style(x_style)

The paper's "columns" are the output axis: rows of torch's weight, rows of B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unziplora.method.forward_mode import ForwardMode
from unziplora.method.functional import (
    branch_delta,
    column_magnitude,
    effective_mask,
    joined,
    masked_up,
    separated_output,
)
from unziplora.method.gradient_gate import Gate, gated_delta, times
from unziplora.method.prompts import BranchName, PromptName

Init = Literal["zero", "random"]


class Branch:
    """One LoRA of a pair: A `down` (r, in), B `up` (out, r), merger m (out,) and mask h (out,).

    limited: its columns are chosen by importance; otherwise the mask stays all open.
    score: (out,), the columns' importance in the current measuring window.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        alpha: float,
        *,
        limited: bool,
        device: torch.device,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.limited = limited
        self.down = nn.Parameter(torch.zeros(rank, in_features, device=device))
        self.up = nn.Parameter(torch.zeros(out_features, rank, device=device))
        self.merger = nn.Parameter(torch.ones(out_features, device=device))
        self.mask = torch.ones(out_features, dtype=torch.bool, device=device)
        self.score = torch.zeros(out_features, device=device)
        self.step_score = torch.zeros(out_features, device=device)

    def initialise(self, init: Init, generator: torch.Generator) -> None:
        """Draws A, and B where init is "random", with a CPU generator.

        "zero": A uniform in +-1/sqrt(in), B zero, as kohya and peft do. "random": A and B normal
        with standard deviation 1/r, as the authors' code does; the run then starts from a
        perturbed model.
        """
        with torch.no_grad():
            drawn = torch.empty(self.down.shape)
            if init == "zero":
                bound = 1 / math.sqrt(self.down.shape[1])
                self.down.copy_(drawn.uniform_(-bound, bound, generator=generator))
                self.up.zero_()
            else:
                std = 1 / self.rank
                self.down.copy_(drawn.normal_(0, std, generator=generator))
                self.up.copy_(torch.empty(self.up.shape).normal_(0, std, generator=generator))

    def factors(self, rows: int | None = None) -> tuple[Tensor, Tensor]:
        """A and B; of only the first rows of A, and columns of B, where that is said."""
        if rows is None:
            return self.down, self.up
        return self.down[:rows], self.up[:, :rows]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def gate(self, *, window: bool = False, fold_mergers: bool = True) -> Tensor:
        """h*m (out,): h counts as ones in a window; m is left out where it is not folded."""
        m = self.merger if fold_mergers else torch.ones_like(self.merger)
        return m if window or not self.limited else effective_mask(self.mask, m)

    def folded_up(self, *, fold_mergers: bool) -> Tensor:
        """up' = (h*m)[:, None] * B, (out, r): what a file holds; the scale stays outside."""
        return masked_up(self.up, self.gate(fold_mergers=fold_mergers))


class BranchPair:
    """Stands in for the forward of one frozen linear layer.

    branches: content and style, or only one of them where a method trains only one here.
    reads_text: the layer maps text (to_k, to_v of cross-attention), so that in separated mode
    base and branches each see their own prompt's embedding instead of the incoming one.
    """

    def __init__(
        self,
        base: Callable[[Tensor], Tensor],
        branches: Mapping[BranchName, Branch],
        mode: ForwardMode,
        *,
        reads_text: bool,
    ) -> None:
        self.base = base
        self.branches = dict(branches)
        self.mode = mode
        self.reads_text = reads_text

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, in) -> (batch, tokens, out), in x's dtype."""
        separated = self.mode.separated
        if separated is None:
            weights = {b: w for b, w in self.mode.weights.items() if b in self.branches and w}
            return separated_output(self.base(x), [self.delta(x, weights)] if weights else [])
        taking_part = {b: p for b, p in separated.branches.items() if b in self.branches}
        if not self.reads_text:  # the three inputs are one, and so is the product
            deltas = [self.delta(x, dict.fromkeys(taking_part, 1.0))] if taking_part else []
            return separated_output(self.base(x), deltas)
        W0x = self._text_product(x, separated.base)  # noqa: N806 (the paper's name)
        texts = {b: self.mode.contexts[prompt].to(x) for b, prompt in taking_part.items()}
        y = separated_output(W0x, (self.delta(text, {b: 1.0}) for b, text in texts.items()))
        return y.expand(len(x), -1, -1)

    def delta(self, x: Tensor, weights: Mapping[BranchName, float]) -> Tensor:
        """Sum of the branches' deltas (eq. 4) for one input, as a single product of rank n*r. A
        branch whose gradients are gated is a product of its own."""
        gates = {
            b: gate.at(x.shape[-2], reads_text=self.reads_text)
            for b, gate in self.mode.gates.items()
            if b in weights
        }
        if not gates:
            return self._product(x, weights)
        deltas = [self._product(x, {b: w}, gates.get(b, 1.0)) for b, w in weights.items()]
        return sum(deltas[1:], deltas[0])

    def _product(self, x: Tensor, weights: Mapping[BranchName, float], gate: Gate = 1.0) -> Tensor:
        mode = self.mode
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        for name, weight in weights.items():
            branch = self.branches[name]
            fold = mode.fold_mergers or mode.separated is not None
            mask = branch.gate(window=mode.window, fold_mergers=fold)
            down, up = branch.factors(mode.rows.get(name))
            downs.append(down)
            ups.append(masked_up(up, mask, weight * branch.scale))
        A, B = joined(downs, ups)  # noqa: N806 (the paper's names)
        plain = isinstance(gate, float) and gate == 1.0
        delta = branch_delta(x, A, B) if plain else gated_delta(x, A, B, gate)
        if mode.measuring and delta.requires_grad:
            measured = [(self.branches[name], mode.rows.get(name)) for name in weights]
            delta = _Measured.apply(delta, x, measured, gate)  # type: ignore[no-untyped-call]
        return delta

    def _text_product(self, x: Tensor, prompt: PromptName) -> Tensor:
        """W0 times a prompt's embedding (1, tokens, out): computed once a run, not once a step."""
        key = (id(self), prompt)
        products = self.mode.text_products
        if key not in products:
            with torch.no_grad():
                products[key] = self.base(self.mode.contexts[prompt].to(x))
        return products[key]


class _Measured(torch.autograd.Function):
    """The identity, which adds the columns' magnitude to `step_score` on the way back.

    x is kept through save_for_backward, so that activation checkpointing drops it as any other.
    """

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, x: Tensor, branches: list[tuple[Branch, int | None]], gate: Gate
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.branches, ctx.gate = branches, gate
        return delta.view_as(delta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        plain = isinstance(ctx.gate, float) and ctx.gate == 1.0
        gated = grad if plain else times(grad, ctx.gate)
        for branch, rows in ctx.branches:
            mask = branch.scale * branch.merger.detach()  # a window: every column is open
            down, up = branch.factors(rows)
            branch.step_score += column_magnitude(down, up, mask, gated, x)
        return grad, None, None, None
