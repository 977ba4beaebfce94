"""A scene of the emoji world: individuals before a background, as styles want to see it.

It is a scenes.Scene (colour, objects, light, edges); borders come from the drawings' own colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

from mini_world.emoji.things import Individual, drawing
from mini_world.scenes import SIDE, background
from mini_world.textures import Array, Mask

FILL = 0.8  # of the canvas' side, for a view's scale 1
STEP = 0.11  # of a colour channel, 0..1: from here on a border is drawn


@dataclass(frozen=True)
class View:
    """How an individual is seen: what may change without changing who it is."""

    x: float = 0.0  # canvas, -1..1
    y: float = 0.0
    scale: float = 1.0
    turn: float = 0.0  # degrees
    mirrored: bool = False


def random_view(rng: np.random.Generator, reach: float = 1.0) -> View:
    """Small changes of place, size and turn; reach 0 to 1 says how small."""
    return View(
        float(rng.uniform(-0.12, 0.12)) * reach,
        float(rng.uniform(-0.08, 0.12)) * reach,
        1.0 + float(rng.uniform(-0.16, 0.1)) * reach,
        float(rng.uniform(-7, 7)) * reach,
        bool(rng.random() < 0.5),
    )


def placed(who: Individual, view: View) -> np.ndarray:
    """The individual on the canvas: (SIDE, SIDE, 4) uint8."""
    image = drawing(who)
    if view.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = max(8, round(SIDE * FILL * view.scale))
    image = image.resize((side, side), Image.Resampling.LANCZOS)
    if view.turn:
        image = image.rotate(view.turn, Image.Resampling.BICUBIC, expand=True)
    page = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    x = round((view.x + 1) * SIDE / 2 - image.width / 2)
    y = round((view.y + 1) * SIDE / 2 - image.height / 2)
    page.paste(image, (x, y))
    return np.asarray(page)


class EmojiScene:
    """What `mini_world.styles` reads of a scene, from pixels with a mask."""

    def __init__(self, colour: Array, objects: Mask, behind: Mask) -> None:
        """colour: (SIDE, SIDE, 3) 0..1; objects: where an object is; behind: borders of the
        background one pixel wide, (SIDE, SIDE)."""
        self.colour, self.objects, self._behind = colour, objects, behind

    @cached_property
    def light(self) -> Array:
        """Luminance, (SIDE, SIDE), 0..1."""
        return (self.colour @ np.array([0.3, 0.59, 0.11], np.float32)).astype(np.float32)

    @cached_property
    def _inner(self) -> Mask:
        steps = np.zeros(self.objects.shape, bool)
        for axis in (0, 1):
            jump = np.abs(np.roll(self.colour, -1, axis) - np.roll(self.colour, 1, axis)).max(-1)
            before, after = np.roll(jump, 1, axis), np.roll(jump, -1, axis)
            steps |= (jump > 2 * STEP) & (jump >= before) & (jump > after)
        return steps & self.objects

    @cached_property
    def _outline(self) -> Mask:
        return border(self.objects)

    def edges(self, width: int, objects_only: bool = False) -> Mask:
        """Borders between parts, (SIDE, SIDE), `width` pixels wide (odd)."""
        edge = self._inner | self._outline
        if not objects_only:
            edge = edge | (self._behind & ~self.objects)
        if width > 1:
            image = Image.fromarray(edge.astype(np.uint8) * 255)
            # two odd filters round off the corners of one large square one
            for part in (3,) * ((width - 1) // 2):
                image = image.filter(ImageFilter.MaxFilter(part))
            edge = np.asarray(image) > 0
        return edge


def border(mask: Mask) -> Mask:
    """Pixels of a mask's border, one wide."""
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return edge


def compose(
    actors: Sequence[tuple[Individual, View]], context: str | None, rng: np.random.Generator
) -> EmojiScene:
    """Background, then the actors from first to last. rng: details of the background."""
    colour, borders = background(context, rng)
    objects = np.zeros((SIDE, SIDE), bool)
    for who, view in actors:
        pixels = placed(who, view).astype(np.float32) / 255
        alpha = pixels[..., 3:]
        colour = colour * (1 - alpha) + pixels[..., :3] * alpha
        objects |= alpha[..., 0] > 0.5
    return EmojiScene(colour.astype(np.float32), objects, borders)
