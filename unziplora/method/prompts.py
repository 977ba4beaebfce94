"""Prompt separation (paper, section 3.3.1): the three prompts of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
