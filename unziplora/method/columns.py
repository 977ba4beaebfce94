"""Column separation (paper, section 3.3.2): when columns are measured, which are opened, eq. 5."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unziplora.method import functional
from unziplora.method.branches import BranchPair

Importance = Literal["magnitude", "signed"]
Reduction = Literal["mean", "sum"]
STAGES = 3  # columns open a third of N at a time


@dataclass(frozen=True)
class ColumnSchedule:
    """When columns are measured and opened; steps count from 0.

    Windows of `window` steps start at 0 (the paper's warm-up), t and 2t; each ends with a
    selection. In a window all columns are open, and these steps train.
    """

    every: int  # t
    window: int  # W

    def measures(self, step: int) -> bool:
        return 0 <= step < STAGES * self.every and step % self.every < self.window

    def opens_window(self, step: int) -> bool:
        return self.measures(step) and step % self.every == 0

    def selects_after(self, step: int) -> bool:
        return self.measures(step) and step % self.every == self.window - 1


def stage_columns(out_features: int, percent: float) -> int:
    """round(N/3 * out): how many columns of a layer open at a time, for N in percent."""
    return round(percent / 100 / STAGES * out_features)


def select(score: Tensor, taken: Tensor, count: int) -> Tensor:
    """Mask (out,) of the `count` columns with the largest |score| among those not taken.

    Exactly `count` of them, fewer only where fewer are left; of equal scores the first wins.
    """
    rank = torch.where(taken, -1.0, score.abs().double())
    order = torch.sort(rank, descending=True, stable=True).indices
    chosen = torch.zeros_like(taken)
    chosen[order[: min(count, int((~taken).sum()))]] = True
    return chosen


def recalibrate(pair: BranchPair, percent: float, *, first: bool, reselect: bool = False) -> None:
    """Opens the next third of N percent in each limited branch of a pair.

    Content picks first. Style, where both are limited, picks among the columns that content has
    not; content may pick a column that style holds (then eq. 5 decides). A branch's own open
    columns are never picked again. first: no selection has been made yet, so that a mask which
    was all open starts again. reselect: the authors' way, which ranks a branch's open columns
    too; those that are picked again open nothing.
    """
    limited = {name: branch for name, branch in pair.branches.items() if branch.limited}
    for branch in limited.values():
        if first:
            branch.mask.zero_()
    for name, branch in limited.items():
        taken = torch.zeros_like(branch.mask) if reselect else branch.mask.clone()
        if name == "style" and "content" in limited:
            taken |= limited["content"].mask
        branch.mask |= select(branch.score, taken, stage_columns(len(branch.mask), percent))


def orthogonality(pairs: Iterable[BranchPair], reduction: Reduction = "mean") -> Tensor:
    """Eq. 5: |m_content * m_style| of the effective masks h*m.

    "mean": over a layer's columns, then over layers (authors' code; with it lambda = 0.5 is a
    sensible weight). "sum": over all columns, as the paper prints it.
    """
    both = [tuple(p.branches.values()) for p in pairs if len(p.branches) == 2]
    m_c, m_s = (torch.cat([pair[i].gate() for pair in both]) for i in range(2))
    if reduction == "sum":
        return functional.orthogonality(m_c, m_s)
    return functional.mean_orthogonality(m_c, m_s, [len(pair[0].merger) for pair in both])
