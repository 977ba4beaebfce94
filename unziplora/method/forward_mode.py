"""How the pairs of one UNet run: a prompt for each branch (training), or as loaded LoRAs do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unziplora.method.prompts import BranchName, PromptName

if TYPE_CHECKING:  # the command line lists METHODS, and should not wait for torch
    from torch import Tensor

    from unziplora.method.gradient_gate import GradientGate


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a step: the prompt that the base model reads, and the
    prompt that each branch taking part reads."""

    base: PromptName
    branches: Mapping[BranchName, PromptName]


@dataclass
class ForwardMode:
    """Shared by all pairs of one UNet.

    separated: the pass whose prompts are read, or None for plain mode (one prompt for all, a
    weight per branch: what a loaded LoRA does).
    contexts: text embeddings (1, tokens, width) by prompt; constant during a run.
    window: all columns count as open (a measuring window).
    measuring: accumulate the magnitude importance in backward passes.
    fold_mergers: plain mode uses h*m, not h alone.
    gates: of the branches whose gradients are multiplied in this pass. rows: of A, that take part
    in it, of branches of which not all do.
    """

    separated: Pass | None = None
    weights: Mapping[BranchName, float] = field(default_factory=dict)
    window: bool = False
    measuring: bool = False
    fold_mergers: bool = True
    gates: Mapping[BranchName, GradientGate] = field(default_factory=dict)
    rows: Mapping[BranchName, int] = field(default_factory=dict)
    contexts: dict[PromptName, Tensor] = field(default_factory=dict)
    text_products: dict[tuple[int, PromptName], Tensor] = field(default_factory=dict)

    def set_contexts(self, contexts: Mapping[PromptName, Tensor]) -> None:
        """Takes the run's text embeddings, and forgets the products of earlier ones."""
        self.contexts = dict(contexts)
        self.text_products.clear()

    def use_pass(
        self,
        one_pass: Pass,
        gates: Mapping[BranchName, GradientGate] | None = None,
        rows: Mapping[BranchName, int] | None = None,
    ) -> None:
        """Training: every branch reads its own prompt."""
        self.separated, self.gates, self.rows = one_pass, gates or {}, rows or {}

    def use_weights(self, weights: Mapping[BranchName, float]) -> None:
        """Generation: one prompt, and a weight per branch (absent or 0: the branch is off)."""
        self.separated, self.gates, self.rows = None, {}, {}
        self.window = self.measuring = False
        self.weights = dict(weights)
