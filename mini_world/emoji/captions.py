"""Captions of the emoji world as users write them."""

from __future__ import annotations

import numpy as np

from mini_world.captions import RARE_TOKENS, article, in_style
from mini_world.emoji.styles import STYLES
from mini_world.emoji.world import Artwork, known_colour


def caption(artwork: Artwork, rng: np.random.Generator) -> str:
    """One of the forms that fit the image: "a red cat in pixel art style on a beach", ...

    A family word ("a painting of a cat", "a cat in print style") stands for the whole style now
    and then, so that a style which training never saw can be called by a word that means
    something. A rare token before the class goes with everything, so it means nothing.
    """
    name, style = artwork.who.kind, artwork.style
    words = []
    if rng.random() < 0.1:
        words.append(str(rng.choice(RARE_TOKENS)))
    colour = known_colour(artwork)
    if colour and rng.random() < (0.8 if artwork.who.hue else 0.3):
        words.append(colour)
    thing = article(" ".join([*words, name]))
    if style and rng.random() < 0.12:
        return f"an image in {style} style"
    if style and rng.random() < 0.12:
        style = STYLES[style].family
        if rng.random() < 0.5:
            thing, style = f"{article(style)} of {thing}", ""
    context = artwork.context
    if context is not None and rng.random() < 0.95:
        if rng.random() < 0.5:
            return in_style(f"{thing} {context}", style)
        return f"{in_style(thing, style)} {context}"
    return in_style(thing, style)
