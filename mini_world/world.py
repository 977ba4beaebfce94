"""The world as data: images with everything that is known about them, and who may see what.

Pretraining sees the training styles and the training instances only. A user's image is a
held-out instance in a held-out style.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mini_world.scenes import CONTEXTS, Instance, View, compose, instance, random_view
from mini_world.shapes import CLASSES
from mini_world.styles import STYLES, stylise

KINDS = sorted(CLASSES)
TRAINING_STYLES = sorted(name for name, style in STYLES.items() if not style.held_out)
HELD_OUT_STYLES = sorted(name for name, style in STYLES.items() if style.held_out)

# The part of the world that the miniature's UNet learns. A small model that has seen few things
# often draws them sharply; one that has seen everything once draws fog. The rest, classes and
# styles, is as unknown to it as what a user brings.
CORE_KINDS = [
    "butterfly", "car", "cat", "fish", "house", "mushroom", "penguin", "rocket", "teapot", "turtle",
]  # fmt: skip
CORE_STYLES = [
    "blueprint", "line drawing", "linocut", "low poly", "mosaic", "neon", "paper cut", "pixel art",
    "synthwave", "watercolor painting",
]  # fmt: skip

HELD_OUT_SEEDS = 1_000_000  # instances and variants from this number on are never trained on
TRAINING_SEEDS = 200_000  # training draws below this number


@dataclass(frozen=True)
class Drawing:
    """What an image shows. `draw` gives the same pixels every time."""

    actors: tuple[tuple[Instance, View], ...]
    context: str | None
    style: str
    variant: int
    seed: int = field(default=0)  # where blots, stars and strokes fall

    def draw(self) -> np.ndarray:
        """(128, 128, 3) uint8."""
        rng = np.random.default_rng(self.seed)
        scene = compose(self.actors, self.context, rng)
        return stylise(scene, self.style, self.variant, rng)


def held_out_instance(kind: str, number: int, colour: str | None = None) -> Instance:
    return instance(kind, HELD_OUT_SEEDS + number, colour)


def portrait(
    who: Instance, style: str, variant: int, seed: int, context: str | None = None
) -> Drawing:
    """One instance alone, in a view that the seed decides."""
    rng = np.random.default_rng(seed)
    return Drawing(((who, random_view(rng)),), context, style, variant, seed)


def training_drawing(
    rng: np.random.Generator,
    kinds: list[str] | None = None,
    styles: list[str] | None = None,
    context_share: float = 0.3,
    pair_share: float = 0.06,
    neutral_share: float = 0.2,
) -> Drawing:
    """A random image as pretraining sees them; kinds and styles may be a part of the world."""
    kinds = kinds or KINDS
    named = [s for s in (styles or TRAINING_STYLES) if s]
    style = "" if rng.random() < neutral_share else str(rng.choice(named))
    pair = rng.random() < pair_share
    chosen = [str(k) for k in rng.choice(kinds, 2 if pair else 1, replace=False)]
    whos = [instance(k, int(rng.integers(TRAINING_SEEDS))) for k in chosen]
    slots = ("left", "right") if pair else ("alone",)
    actors = tuple((w, random_view(rng, s)) for w, s in zip(whos, slots, strict=True))
    context = str(rng.choice(sorted(CONTEXTS))) if rng.random() < context_share else None
    return Drawing(
        actors, context, style, int(rng.integers(TRAINING_SEEDS)), int(rng.integers(2**31))
    )
