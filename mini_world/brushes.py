"""What styles are drawn with: inks, mixtures, hatching. Images are (side, side, 3), 0..1."""

from __future__ import annotations

import numpy as np

from mini_world.scenes import SIDE, Scene
from mini_world.textures import Array, Ints, Mask, grid


def rgb(*values: int) -> Array:
    return np.asarray(values, np.float32) / 255


def paint(image: Array, where: Mask, ink: Array) -> Array:
    """`ink` (3,) or (side, side, 3) where the mask says so."""
    return np.where(where[..., None], ink, image)


def mix(a: Array, b: Array, share: Array | float) -> Array:
    """a where share is 0, b where it is 1. share: (side, side) or a number."""
    share = share[..., None] if isinstance(share, np.ndarray) else share
    return (a + (b - a) * share).astype(np.float32)


def vivid(colour: Array, amount: float) -> Array:
    """Saturation times `amount`."""
    grey = colour.mean(-1, keepdims=True)
    return np.clip(grey + (colour - grey) * amount, 0, 1)


def waves(period: float, degrees: float, wobble: Array | float = 0.0) -> Array:
    """A triangle wave across the canvas, 0..1, (side, side); period in canvas pixels."""
    y, x = grid(SIDE)
    a = np.deg2rad(degrees)
    phase = (x * np.cos(a) + y * np.sin(a) + wobble) / period
    return np.abs(np.mod(phase, 1) * 2 - 1).astype(np.float32)


def stitches(wide: float, tall: float) -> tuple[Ints, Ints, Array, Array]:
    """A knitted canvas: for each pixel, (y, x) of its stitch's centre, how far it is from the
    stitch's middle (0) to its side (1), and how far down the stitch it is, 0..1."""
    y, x = grid(SIDE)
    aside = np.abs(np.mod(x / wide, 1) - 0.5) * 2
    row, down = np.floor(y / tall - aside * 0.8), np.mod(y / tall - aside * 0.8, 1)
    cy = np.clip((row + 0.9) * tall, 0, SIDE - 1).astype(int)
    cx = np.clip((np.floor(x / wide) + 0.5) * wide, 0, SIDE - 1).astype(int)
    return cy, cx, aside, down


def sample(scene: Scene, y: Ints, x: Ints) -> Array:
    """Each pixel's colour taken at (y, x), but never across the outline of an object."""
    there = scene.objects[y, x] == scene.objects
    return np.where(there[..., None], scene.colour[y, x], scene.colour)


def pick(rng: np.random.Generator, *options: tuple[int, int, int]) -> Array:
    return rgb(*options[int(rng.integers(len(options)))])
