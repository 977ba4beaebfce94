"""What stands behind the objects, and what a style may look at.

A background is drawn with a pen at twice the image's size, so that styles can be sharp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from mini_world.textures import Array, Mask

IMAGE_SIDE = 128  # pixels
SIDE = 2 * IMAGE_SIDE  # the canvas that scenes and styles work on

BACKDROPS = (
    (236, 232, 222),
    (222, 234, 242),
    (228, 240, 222),
    (246, 228, 226),
    (232, 226, 242),
    (250, 240, 208),
    (212, 216, 222),
)
LIGHT, GREEN, BROWN, GREY = (246, 244, 238), (74, 150, 76), (124, 84, 52), (150, 152, 160)

Ink = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


class Scene(Protocol):
    """Objects before a background, as styles see them; images are (SIDE, SIDE, ...)."""

    @property
    def colour(self) -> Array:
        """(SIDE, SIDE, 3), 0..1."""

    @property
    def objects(self) -> Mask:
        """(SIDE, SIDE): where an object is, rather than background."""

    @property
    def light(self) -> Array:
        """Luminance, (SIDE, SIDE), 0..1."""

    def edges(self, width: int, objects_only: bool = False) -> Mask:
        """Borders between parts, (SIDE, SIDE), `width` pixels wide (odd)."""


class Pen:
    """Draws parts, each in one colour. Points are in canvas units, -1..1, x right, y down."""

    def __init__(self) -> None:
        self._image = Image.new("L", (SIDE, SIDE), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._colours: list[Ink] = [(0, 0, 0)]

    def _part(self, ink: Ink) -> int:
        self._colours.append(ink)
        return len(self._colours) - 1

    def poly(self, points: Points, ink: Ink) -> None:
        self._draw.polygon(_placed(points), fill=self._part(ink))

    def blob(self, points: Points, ink: Ink) -> None:
        """A closed Catmull-Rom curve through the points."""
        p = np.asarray(points, np.float64)
        before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        s = np.linspace(0, 1, 6, endpoint=False)[:, None, None]
        curve = 0.5 * (
            2 * p
            + (after - before) * s
            + (2 * before - 5 * p + 4 * after - beyond) * s**2
            + (3 * p - before - 3 * after + beyond) * s**3
        )
        self.poly(curve.transpose(1, 0, 2).reshape(-1, 2).tolist(), ink)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, ink: Ink, degrees: float = 0
    ) -> None:
        a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        turn = np.deg2rad(degrees)
        u, v = rx * np.cos(a), ry * np.sin(a)
        px = x + u * np.cos(turn) - v * np.sin(turn)
        py = y + u * np.sin(turn) + v * np.cos(turn)
        self.poly(list(zip(px.tolist(), py.tolist(), strict=True)), ink)

    def line(self, points: Points, width: float, ink: Ink) -> None:
        part, placed = self._part(ink), _placed(points)
        pixels = max(2, round(width * SIDE / 2))
        self._draw.line(placed, fill=part, width=pixels, joint="curve")
        r = pixels / 2 - 0.5
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=part)

    def drawn(self) -> tuple[Array, Mask]:
        """Colours (SIDE, SIDE, 3), 0..1, and the borders between parts, one pixel wide."""
        parts = np.array(self._image)
        borders = np.zeros(parts.shape, bool)
        borders[:, 1:] |= parts[:, 1:] != parts[:, :-1]
        borders[1:] |= parts[1:] != parts[:-1]
        return (np.asarray(self._colours, np.float32) / 255)[parts], borders


def _placed(points: Points) -> list[tuple[float, float]]:
    """In pixels."""
    x, y = ((np.asarray(points, np.float64) + 1) * (SIDE / 2)).T
    return list(zip(x.tolist(), y.tolist(), strict=True))


Context = Callable[[Pen, np.random.Generator], None]
CONTEXTS: dict[str, Context] = {}


def setting(name: str) -> Callable[[Context], Context]:
    def register(draw: Context) -> Context:
        CONTEXTS[name] = draw
        return draw

    return register


def _band(pen: Pen, y0: float, y1: float, ink: tuple[int, int, int]) -> None:
    pen.poly([(-1.1, y0), (1.1, y0), (1.1, y1), (-1.1, y1)], ink)


@setting("on a beach")
def beach(pen: Pen, rng: np.random.Generator) -> None:
    sea = rng.uniform(-0.15, 0.05)
    _band(pen, -1.1, sea, (168, 218, 244))
    sun = rng.choice([-1, 1]) * rng.uniform(0.6, 0.75)
    pen.ellipse(sun, -0.72, 0.2, 0.2, (252, 222, 96))
    _band(pen, sea, 0.42, (52, 138, 190))
    pen.poly([(-1.1, 0.42), (0, 0.32), (1.1, 0.46), (1.1, 1.1), (-1.1, 1.1)], (238, 214, 156))


@setting("in the snow")
def snow(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (150, 176, 206))
    pen.blob(
        [(-1.4, 1.4), (-1.3, 0.5), (-0.4, 0.35), (0.5, 0.5), (1.4, 0.4), (1.4, 1.4)],
        (248, 250, 254),
    )
    for x, y in rng.uniform(-1, 1, (26, 2)):
        pen.ellipse(float(x), float(y) * 0.9 - 0.1, 0.045, 0.045, (252, 253, 255))


@setting("in a forest")
def forest(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (186, 218, 186))
    for x in (-0.95, -0.62, -0.25, 0.22, 0.6, 0.95):
        x = float(x + rng.uniform(-0.07, 0.07))
        pen.poly([(x - 0.06, -0.2), (x + 0.06, -0.2), (x + 0.06, 0.6), (x - 0.06, 0.6)], BROWN)
        tall = float(rng.uniform(0.75, 1.0))
        pen.poly([(x - 0.26, 0.3), (x, -tall), (x + 0.26, 0.3)], (44, 112, 66))
    _band(pen, 0.55, 1.1, (104, 150, 76))


@setting("at night")
def night(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (26, 32, 78))
    moon = float(rng.choice([-1, 1]) * rng.uniform(0.6, 0.72))
    pen.ellipse(moon, -0.68, 0.2, 0.2, (246, 240, 196))
    pen.ellipse(moon + 0.1, -0.72, 0.17, 0.17, (26, 32, 78))
    for x, y in rng.uniform(-1, 1, (16, 2)):
        pen.ellipse(float(x), float(y) * 0.75 - 0.25, 0.028, 0.028, (250, 246, 220))
    _band(pen, 0.72, 1.1, (30, 56, 62))


@setting("in a city")
def city(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (198, 220, 238))
    x = -1.05
    while x < 1.05:
        wide, top = float(rng.uniform(0.28, 0.42)), float(rng.uniform(-0.85, -0.2))
        tone = int(rng.integers(104, 160))
        pen.poly(
            [(x, top), (x + wide - 0.03, top), (x + wide - 0.03, 0.7), (x, 0.7)],
            (tone, tone + 4, tone + 18),
        )
        for row in np.arange(top + 0.14, 0.5, 0.24):
            pen.poly(
                [
                    (x + 0.07, row),
                    (x + wide - 0.1, row),
                    (x + wide - 0.1, row + 0.1),
                    (x + 0.07, row + 0.1),
                ],
                (250, 232, 150),
            )
        x += wide
    _band(pen, 0.66, 1.1, (92, 94, 104))
    _band(pen, 0.84, 0.9, LIGHT)


@setting("on a table")
def table(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (216, 226, 206))
    for x in np.arange(-1, 1.1, 0.34):
        pen.line([(float(x), -1.1), (float(x), 0.6)], 0.07, (196, 210, 188))
    _band(pen, 0.52, 1.1, (172, 112, 62))
    _band(pen, 0.52, 0.62, (206, 148, 92))


@setting("in the mountains")
def mountains(pen: Pen, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (190, 224, 246))
    for x, half in ((-0.7, 0.75), (0.75, 0.8), (0.05, 0.7)):
        x, top = x + float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.9, -0.65))
        pen.poly([(x - half, 0.6), (x, top), (x + half, 0.6)], GREY)
        pen.poly([(x - half * 0.27, top + 0.4), (x, top), (x + half * 0.27, top + 0.4)], LIGHT)
    _band(pen, 0.5, 1.1, GREEN)


def background(context: str | None, rng: np.random.Generator) -> tuple[Array, Mask]:
    """As `Pen.drawn`: a place, or without a context one plain colour. rng: its details."""
    pen = Pen()
    if context is None:
        _band(pen, -1.1, 1.1, BACKDROPS[int(rng.integers(len(BACKDROPS)))])
    else:
        CONTEXTS[context](pen, rng)
    return pen.drawn()
