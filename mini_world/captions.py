"""Captions as users write them."""

from __future__ import annotations

import numpy as np

from mini_world.scenes import Instance
from mini_world.styles import STYLES
from mini_world.world import Drawing

RARE_TOKENS = ("sks", "ohwx", "zwx", "xyz", "hta", "olis", "bnha", "ktn", "vkx", "qwz")


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def in_style(text: str, style: str) -> str:
    return f"{text} in {style} style" if style else text


def caption(drawing: Drawing, rng: np.random.Generator) -> str:
    """One of the forms that fit the image: "a red cat in mosaic style on a beach", ...

    A colour is said only where the style keeps it. A rare token before the class is said now
    and then, so that it disturbs nothing; it goes with everything, so it means nothing.
    """
    colours = STYLES[drawing.style].keeps_colour
    names = [_named(who, colours, rng) for who, _ in drawing.actors]
    together = " and ".join(names)
    if len(names) > 1:
        together += " side by side"
    if drawing.style and rng.random() < 0.12 and len(names) == 1:
        return f"an image in {drawing.style} style"
    if drawing.context is not None and rng.random() < 0.95:
        return in_context(together, drawing.context, drawing.style, rng)
    if rng.random() < 0.08 and not drawing.style:
        return f"a picture of {together}"
    return in_style(together, drawing.style)


def _named(who: Instance, colours: bool, rng: np.random.Generator) -> str:
    words = []
    if rng.random() < 0.12:
        words.append(str(rng.choice(RARE_TOKENS)))
    if colours and who.kind != "snowman" and rng.random() < 0.45:
        words.append(who.colour)
    return article(" ".join([*words, who.kind]))


def in_context(text: str, context: str, style: str, rng: np.random.Generator) -> str:
    """The context before or after the style."""
    if rng.random() < 0.5:
        return in_style(f"{text} {context}", style)
    return f"{in_style(text, style)} {context}"
