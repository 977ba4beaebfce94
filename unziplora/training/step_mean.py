"""Beyond the paper: the files hold the mean of A, B and mergers over the last steps of a run.

A = (A_1 + ... + A_k) / k, and so B and m, of the run's last k steps (Polyak & Juditsky 1992)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.unet.attach import Attachment


class StepMean:
    """Adds up what an attachment has trained over the last steps, in fp32.

    last: how many of a run's steps it takes, 0 for none: then it holds nothing. count: steps that
    were added so far.
    """

    def __init__(self, attachment: Attachment, last: int, steps: int) -> None:
        self.count = 0
        self._attachment, self._first = attachment, steps - last + 1
        # at once: a memory that is full in the middle of a step would end the run
        parameters = attachment.named_parameters() if last else ()
        self._sums = {
            name: torch.zeros_like(p, dtype=torch.float32, requires_grad=False)
            for name, p in parameters
        }

    @torch.no_grad()
    def add(self, step: int) -> None:
        """The numbers after a step (from 1), if it is one of the last."""
        if not self._sums or step < self._first:
            return
        for name, parameter in self._attachment.named_parameters():
            self._sums[name].add_(parameter)
        self.count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The branches hold the mean meanwhile, where there is one yet. Nothing may be trained or
        saved as a state within."""
        if not self.count:
            yield
            return
        kept = [(b, b.down, b.up, b.merger) for _, _, b in self._attachment.branches()]
        for layer, name, branch in self._attachment.branches():
            branch.down, branch.up, branch.merger = (
                nn.Parameter(self._sums[f"{layer}:{name}:{part}"] / self.count, requires_grad=False)
                for part in ("down", "up", "merger")
            )
        try:
            yield
        finally:
            for branch, down, up, merger in kept:
                branch.down, branch.up, branch.merger = down, up, merger

    def tensors(self) -> dict[str, Tensor]:
        """What a state keeps; not copies."""
        return {f"{name}:sum": total for name, total in self._sums.items() if self.count}

    def numbers(self) -> dict[str, Any]:
        return {"averaged": self.count} if self.count else {}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError, RuntimeError or ValueError where a state has other ones."""
        count = numbers.get("averaged", 0)
        if type(count) is not int or count < 0:
            raise TypeError("steps are counted in whole numbers")
        for name, total in self._sums.items():
            if not count:
                total.zero_()
                continue
            if total.shape != tensors[f"{name}:sum"].shape:
                raise ValueError("the sums are of another size")
            total.copy_(tensors[f"{name}:sum"])
        self.count = count if self._sums else 0
