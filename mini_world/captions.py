"""Captions as users write them."""

from __future__ import annotations

import numpy as np

from mini_world.styles import STYLES
from mini_world.world import Picture

RARE_TOKENS = ("sks", "ohwx", "zwx", "xyz", "hta", "olis", "bnha", "ktn", "vkx", "qwz")


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def in_style(text: str, style: str) -> str:
    return f"{text} in {style} style" if style else text


def caption(picture: Picture, rng: np.random.Generator) -> str:
    """One of the forms that fit the picture: "a red cat in mosaic style on a beach", ...

    A colour is said only where the style keeps it. A rare token before the class is said now
    and then, so that it disturbs nothing; it goes with everything, so it means nothing.
    """
    colours = STYLES[picture.style].keeps_colour
    names = []
    for who, _ in picture.actors:
        words = []
        if rng.random() < 0.12:
            words.append(str(rng.choice(RARE_TOKENS)))
        if colours and who.kind != "snowman" and rng.random() < 0.45:
            words.append(who.colour)
        names.append(article(" ".join([*words, who.kind])))
    together = " and ".join(names)
    if len(names) > 1:
        together += " side by side"
    if picture.style and rng.random() < 0.12 and len(names) == 1:
        return f"an image in {picture.style} style"
    context = picture.context
    if context is not None and rng.random() < 0.95:
        if rng.random() < 0.5:
            return in_style(f"{together} {context}", picture.style)
        return f"{in_style(together, picture.style)} {context}"
    if rng.random() < 0.08 and not picture.style:
        return f"a picture of {together}"
    return in_style(together, picture.style)
