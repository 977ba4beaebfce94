"""Captions of the emoji world as users write them."""

from __future__ import annotations

import numpy as np

from mini_world.captions import RARE_TOKENS, article, in_context, in_style
from mini_world.emoji.styles import STYLES
from mini_world.emoji.world import Artwork, known_colour


def caption(artwork: Artwork, rng: np.random.Generator) -> str:
    """One of the forms that fit the image: "a red cat in pixel art style on a beach", ...

    A family word ("a painting of a cat", "a cat in print style") stands for the whole style now
    and then, so that a style which training never saw can be called by a word that means
    something. A rare token before the class goes with everything, so it means nothing.
    """
    thing, style = _named(artwork, rng), artwork.style
    if style and rng.random() < 0.12:
        return f"an image in {style} style"
    if style and rng.random() < 0.12:
        style = STYLES[style].family
        if rng.random() < 0.5:
            thing, style = f"{article(style)} of {thing}", ""
    if artwork.context is not None and rng.random() < 0.95:
        return in_context(thing, artwork.context, style, rng)
    return in_style(thing, style)


def _named(artwork: Artwork, rng: np.random.Generator) -> str:
    words = []
    if rng.random() < 0.1:
        words.append(str(rng.choice(RARE_TOKENS)))
    colour = known_colour(artwork)
    if colour and rng.random() < (0.8 if artwork.who.hue else 0.3):
        words.append(colour)
    return article(" ".join([*words, artwork.who.kind]))
