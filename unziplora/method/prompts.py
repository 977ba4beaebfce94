"""Prompt separation (paper, section 3.3.1): the three prompts of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

BranchName = Literal["content", "style"]
PromptName = Literal["combined", "content", "style", "other style", "other class"]
BRANCHES: tuple[BranchName, BranchName] = ("content", "style")
PROMPTS: tuple[PromptName, PromptName, PromptName] = ("combined", "content", "style")
_OTHER_STYLES, _OTHER_CLASSES = ("oil painting", "pencil sketch"), ("house", "tree")


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

        Words that the form brings along are taken out of the user's: "a cat" is a cat, and
        "watercolor style" is watercolor. style_names_class: the style prompt is "a cat in
        watercolor style" instead, as in the authors' script.
        """
        content = f"a {content_trigger(subject, token)}"
        styled = f"a {class_words(subject, token)}" if style_names_class else "an image"
        manner = f"in {style_trigger(style)}"
        return cls(f"{content} {manner}", content, f"{styled} {manner}")

    def text(self, name: PromptName) -> str:
        return {"combined": self.combined, "content": self.content, "style": self.style}[name]


def other_style(style: str) -> str:
    """A style that shares no word with this one."""
    return _other(style, _OTHER_STYLES)


def other_class(subject: str) -> str:
    """A class that shares no word with this one."""
    return _other(subject, _OTHER_CLASSES)


def _other(own_words: str, choices: tuple[str, ...]) -> str:
    own = set(_plain(own_words).lower().split())
    return next((words for words in choices if own.isdisjoint(words.split())), choices[-1])


_ARTICLE = re.compile(r"(?:an?|the|my|your|his|her|its|our|their|this|that|some|one)\s+", re.I)
_STYLE_OF = re.compile(r"(?:in\s+)?(?:an?\s+|the\s+)?style\s+of\s+(?=\S)|by\s+(?=\S)", re.I)
_IN = re.compile(r"in\s+(?=\S)", re.I)
_STYLE = re.compile(r"(?<=\S)[\s-]+style$", re.I)


def content_trigger(subject: str, token: str) -> str:
    """What calls the content LoRA: "sks cat"."""
    return f"{token} {class_words(subject, token)}"


def style_trigger(style: str) -> str:
    """What calls the style LoRA, as it stands behind "in": "watercolor style", "the style of
    Monet"."""
    words = _plain(style)
    if (of := _STYLE_OF.match(words)) is not None:
        return f"the style of {words[of.end() :]}"
    words = _without_article(words[found.end() :] if (found := _IN.match(words)) else words)
    return f"{_STYLE.sub('', words)} style"


def class_words(subject: str, token: str) -> str:
    """The class of a subject: "cat", of "a cat", "my cat" and "a sks cat" too."""
    words = _without_article(_plain(subject))
    bare = words.removeprefix(f"{_plain(token)} ").strip()
    return _without_article(bare) or words


def with_article(noun: str) -> str:
    """ "a sks cat", also of "sks cat"."""
    return noun if noun.split()[0] in ("a", "an", "the") else f"a {noun}"


def _plain(words: str) -> str:
    """With single spaces, and no full stop or comma at either end."""
    return " ".join(words.split()).strip(" .,;") or words


def _without_article(words: str) -> str:
    found = _ARTICLE.match(words)
    return words[found.end() :] if found is not None and found.end() < len(words) else words
