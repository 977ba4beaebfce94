"""Prompt separation (paper, section 3.3.1): the three prompts, and which branch reads which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

BranchName = Literal["content", "style"]
PromptName = Literal["combined", "content", "style"]
BRANCHES: tuple[BranchName, BranchName] = ("content", "style")
PROMPTS: tuple[PromptName, PromptName, PromptName] = ("combined", "content", "style")


@dataclass(frozen=True)
class Prompts:
    """The texts of a run. Figure 2 of the paper gives their form."""

    combined: str
    content: str
    style: str

    @classmethod
    def from_words(
        cls, subject: str, style: str, token: str, *, style_names_class: bool
    ) -> Prompts:
        """As "a sks cat in watercolor style", "a sks cat" and "an image in watercolor style".

        style_names_class: the style prompt is "a cat in watercolor style" instead, as in the
        authors' script.
        """
        content = f"a {token} {subject}"
        styled = f"a {subject}" if style_names_class else "an image"
        return cls(f"{content} in {style} style", content, f"{styled} in {style} style")

    def text(self, name: PromptName) -> str:
        return {"combined": self.combined, "content": self.content, "style": self.style}[name]


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a step: the prompt that the base model reads, and the
    prompt that each branch taking part reads."""

    base: PromptName
    branches: Mapping[BranchName, PromptName]


@dataclass
class ForwardMode:
    """How all pairs of one UNet run now.

    separated: the pass whose prompts are read, or None for plain mode (one prompt for all, a
    weight per branch: what a loaded LoRA does).
    contexts: text embeddings (1, tokens, width) by prompt; constant during a run.
    window: all columns count as open (a measuring window).
    measuring: accumulate the magnitude importance in backward passes.
    fold_mergers: plain mode uses h*m, not h alone.
    """

    separated: Pass | None = None
    weights: Mapping[BranchName, float] = field(default_factory=dict)
    window: bool = False
    measuring: bool = False
    fold_mergers: bool = True
    contexts: dict[PromptName, Tensor] = field(default_factory=dict)
    text_products: dict[tuple[int, PromptName], Tensor] = field(default_factory=dict)

    def set_contexts(self, contexts: Mapping[PromptName, Tensor]) -> None:
        """Takes the run's text embeddings, and forgets the products of earlier ones."""
        self.contexts = dict(contexts)
        self.text_products.clear()

    def use_pass(self, one_pass: Pass) -> None:
        """Training: every branch reads its own prompt."""
        self.separated = one_pass

    def use_weights(self, weights: Mapping[BranchName, float]) -> None:
        """Generation: one prompt, and a weight per branch (absent or 0: the branch is off)."""
        self.separated = None
        self.window = self.measuring = False
        self.weights = dict(weights)
