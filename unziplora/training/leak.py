"""Beyond the paper: a branch alone should change nothing where it is not called.

    leak_b = MSE(prediction with branch b, prediction of the base), both of one prompt

Content reads a prompt of another style and without the subject, style one of another class. Every
k-th step adds leak_penalty * (leak_content + leak_style) to the loss, as ai-toolkit's "differential
output preservation" does for one LoRA. The base is kept where it is: its prediction is no part
of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unziplora.method.forward_mode import Pass
from unziplora.method.prompts import BranchName, PromptName
from unziplora.training.settings import ResolvedSettings

_READS: Mapping[BranchName, PromptName] = {"content": "other style", "style": "other class"}


@dataclass(frozen=True)
class LeakPenalty:
    """weight: of the penalty, 0 for none. every: k."""

    weight: float
    every: int

    @classmethod
    def of(cls, settings: ResolvedSettings) -> LeakPenalty:
        return cls(settings.leak_penalty, settings.leak_every)

    def due(self, step: int) -> bool:
        """Whether a step (from 0) has it: the k-th, the 2k-th and so on."""
        return bool(self.weight) and (step + 1) % self.every == 0

    def passes(self) -> Iterator[tuple[Pass, Pass]]:
        """For each branch, the base alone and with it, both of its prompt."""
        for branch, prompt in _READS.items():
            yield Pass(prompt, {}), Pass(prompt, {branch: prompt})
