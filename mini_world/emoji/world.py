"""The emoji world as data: images with everything that is known about them, and who may see what.

Pretraining sees training individuals in training styles. A user's image is a held-out individual
in a held-out style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mini_world.emoji.scene import EmojiScene, View, compose, random_view
from mini_world.emoji.styles import FAMILIES, HELD_OUT_STYLES, STYLES, TRAINING_STYLES, stylise
from mini_world.emoji.things import (
    CORE_KINDS,
    HELD_OUT_HUES,
    HUES,
    KINDS,
    Individual,
    colour_word,
    vendors_of,
)
from mini_world.scenes import CONTEXTS, IMAGE_SIDE

__all__ = ["CORE_KINDS", "CORE_STYLES", "FAMILIES", "HELD_OUT_STYLES", "KINDS", "TRAINING_STYLES"]

# What the first stretch of the UNet's training sees: one or two styles of most families.
CORE_STYLES = [
    "blueprint drawing", "cartoon drawing", "copper engraving", "duotone print", "felt textile",
    "halftone print", "line drawing", "linocut print", "mosaic tiles", "neon sign", "oil painting",
    "pixel art", "stained glass", "watercolor painting",
]  # fmt: skip
TRAINING_VARIANTS = 1000  # variants of a style from here on are never trained on
TURNED_HUE = 0.3  # share of training images whose individual has other hues


@dataclass(frozen=True)
class Artwork:
    """What an image shows. `draw` gives the same pixels every time."""

    who: Individual
    view: View
    context: str | None
    style: str
    variant: int
    seed: int  # where blots, stars and strokes fall

    def draw(self) -> np.ndarray:
        """(128, 128, 3) uint8."""
        rng = np.random.default_rng(self.seed)
        pixels: np.ndarray = stylise(self._scene(rng), self.style, self.variant, rng)
        return pixels

    def mask(self) -> np.ndarray:
        """(128, 128) uint8: 255 where the individual is, before a style moves its border."""
        canvas = self._scene(np.random.default_rng(self.seed)).objects
        half = canvas.reshape(IMAGE_SIDE, 2, IMAGE_SIDE, 2).mean((1, 3))
        return (half * 255 + 0.5).astype(np.uint8)

    def _scene(self, rng: np.random.Generator) -> EmojiScene:
        return compose(((self.who, self.view),), self.context, rng)


def portrait(
    who: Individual, style: str, variant: int, seed: int, context: str | None = None
) -> Artwork:
    """An individual in a view that the seed decides."""
    return Artwork(who, random_view(np.random.default_rng(seed)), context, style, variant, seed)


def training_individual(rng: np.random.Generator, kinds: Sequence[str] = KINDS) -> Individual:
    kind = str(rng.choice(list(kinds)))
    vendor = str(rng.choice(vendors_of(kind)))
    hues = [hue for hue in range(1, HUES) if hue not in HELD_OUT_HUES]
    return Individual(kind, vendor, int(rng.choice(hues)) if rng.random() < TURNED_HUE else 0)


def held_out_individuals(kinds: Sequence[str] = CORE_KINDS) -> list[Individual]:
    """What the unseen vendor drew; where it drew nothing, a seen vendor's in unseen hues."""
    found = []
    for number, kind in enumerate(kinds):
        unseen = vendors_of(kind, held_out=True)
        seen = vendors_of(kind)
        hue = HELD_OUT_HUES[number % len(HELD_OUT_HUES)]
        found.append(
            Individual(kind, unseen[0])
            if unseen
            else Individual(kind, seen[number % len(seen)], hue)
        )
    return found


def held_out_individual(kind: str, number: int) -> Individual:
    """One of a class' held-out individuals: seen vendors' in unseen hues, then the unseen
    vendor's in every hue."""
    every = [Individual(kind, who, hue) for hue in HELD_OUT_HUES for who in vendors_of(kind)]
    every += [
        Individual(kind, who, hue) for who in vendors_of(kind, held_out=True) for hue in range(HUES)
    ]
    return every[number % len(every)]


def training_artwork(
    rng: np.random.Generator,
    kinds: Sequence[str] = KINDS,
    styles: Sequence[str] = TRAINING_STYLES,
    context_share: float = 0.25,
    neutral_share: float = 0.2,
    reach: float = 1.0,
) -> Artwork:
    """A random image as pretraining sees them; kinds and styles may be a part of the world."""
    style = "" if rng.random() < neutral_share else str(rng.choice(list(styles)))
    context = str(rng.choice(sorted(CONTEXTS))) if rng.random() < context_share else None
    return Artwork(
        training_individual(rng, kinds),
        random_view(rng, reach),
        context,
        style,
        int(rng.integers(TRAINING_VARIANTS)),
        int(rng.integers(2**31)),
    )


def known_colour(artwork: Artwork) -> str:
    """The colour that a caption may promise, "" for none."""
    return colour_word(artwork.who) if STYLES[artwork.style].keeps_colour else ""
