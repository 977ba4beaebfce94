"""Parts of captions as users write them (emoji/captions.py puts them together)."""

from __future__ import annotations

import numpy as np

RARE_TOKENS = ("sks", "ohwx", "zwx", "xyz", "hta", "olis", "bnha", "ktn", "vkx", "qwz")


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def in_style(text: str, style: str) -> str:
    return f"{text} in {style} style" if style else text


def in_context(text: str, context: str, style: str, rng: np.random.Generator) -> str:
    """The context before or after the style."""
    if rng.random() < 0.5:
        return in_style(f"{text} {context}", style)
    return f"{in_style(text, style)} {context}"
