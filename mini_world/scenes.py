"""Scenes: instances of the classes, where they stand, and the parts they fall into.

A scene is a map of part numbers with one colour per part. It has no style yet: styles.py turns
it into an image. It is drawn at twice the image's size, so that styles can be sharp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mini_world.pen import BROWN, GREEN, GREY, LIGHT, Points
from mini_world.shapes import CLASSES
from mini_world.textures import Array, Bytes, Mask

IMAGE_SIDE = 128  # pixels
SIDE = 2 * IMAGE_SIDE  # the canvas that scenes and styles work on

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 44),
    "orange": (238, 136, 40),
    "yellow": (244, 208, 60),
    "green": (70, 164, 80),
    "blue": (48, 104, 206),
    "purple": (134, 72, 180),
    "pink": (242, 140, 178),
    "brown": (138, 92, 56),
    "black": (58, 58, 66),
}
MARKINGS = ("plain", "stripes", "spots", "halves")
BACKDROPS = (
    (236, 232, 222),
    (222, 234, 242),
    (228, 240, 222),
    (246, 228, 226),
    (232, 226, 242),
    (250, 240, 208),
    (212, 216, 222),
)


@dataclass(frozen=True)
class Instance:
    """One individual: its shape details, palette and marking are the same in every image."""

    kind: str  # a class of shapes.CLASSES
    shape_seed: int
    colour: str  # name of the main colour, as captions use it
    palette: dict[str, tuple[int, int, int]]  # main, second, accent, mark
    marking: str
    marking_turn: float  # radians
    marking_size: float  # object units


@dataclass(frozen=True)
class View:
    """How an instance is seen in one image: what may change without changing who it is."""

    x: float = 0.0  # canvas, -1..1
    y: float = 0.0
    scale: float = 0.86
    turn: float = 0.0  # radians
    mirrored: bool = False


def instance(kind: str, seed: int, colour: str | None = None) -> Instance:
    """The individual number `seed` of a class; `colour` overrides its main colour."""
    rng = np.random.default_rng((sorted(CLASSES).index(kind), seed))
    names = list(COLOURS)
    drawn = [str(n) for n in rng.permutation(names)]
    main = colour or drawn[0]
    others = [n for n in drawn if n != main]

    def shade(name: str) -> tuple[int, int, int]:
        r, g, b = np.clip(np.array(COLOURS[name]) + rng.integers(-14, 15, 3), 0, 255)
        return int(r), int(g), int(b)

    def pale(name: str) -> tuple[int, int, int]:
        r, g, b = (int(0.45 * c + 0.55 * 250) for c in COLOURS[name])
        return r, g, b

    palette = {
        "main": shade(main),
        "second": pale(others[0]) if rng.random() < 0.5 else shade(others[0]),
        "accent": shade(others[1]),
        "mark": pale(others[2]) if rng.random() < 0.5 else shade(others[2]),
    }
    marking = str(rng.choice(MARKINGS, p=(0.4, 0.22, 0.22, 0.16)))
    return Instance(
        kind,
        int(rng.integers(2**31)),
        main,
        palette,
        marking,
        float(rng.choice([0.0, 0.5, 1.0, 1.5])) * np.pi / 2 + float(rng.uniform(-0.15, 0.15)),
        float(rng.uniform(0.34, 0.5)),
    )


def random_view(rng: np.random.Generator, slot: str = "alone") -> View:
    """Small changes of place, size and turn. slot: alone, left or right."""
    x, scale = {"alone": (0.0, 0.86), "left": (-0.49, 0.5), "right": (0.49, 0.5)}[slot]
    return View(
        x + float(rng.uniform(-0.05, 0.05)),
        float(rng.uniform(-0.03, 0.05)) + (0.0 if slot == "alone" else 0.12),
        scale * float(rng.uniform(0.92, 1.08)),
        float(rng.uniform(-0.09, 0.09)),
        bool(rng.random() < 0.5),
    )


class Canvas:
    """Draws parts. Points are in canvas units, -1..1, through the current view."""

    def __init__(self) -> None:
        self._image = Image.new("L", (SIDE, SIDE), 0)
        self._draw = ImageDraw.Draw(self._image)
        self.colours: list[tuple[int, int, int]] = [(0, 0, 0)]
        self.is_object: list[bool] = [False]
        self._roles: list[str] = [""]
        self._palette: dict[str, tuple[int, int, int]] = {}
        self._view = View(scale=1.0)
        self._owned = False

    def look(self, view: View, palette: dict[str, tuple[int, int, int]], is_object: bool) -> None:
        self._view, self._palette, self._owned = view, palette, is_object

    def _part(self, ink: object) -> int:
        if isinstance(ink, str):
            role, colour = ink, self._palette[ink]
        else:
            role, colour = "", ink  # type: ignore[assignment]
        self.colours.append(colour)
        self.is_object.append(self._owned)
        self._roles.append(role)
        return len(self.colours) - 1

    def _place(self, points: Points) -> list[tuple[float, float]]:
        v = self._view
        p = np.asarray(points, np.float64) * v.scale
        if v.mirrored:
            p[:, 0] *= -1
        cos, sin = np.cos(v.turn), np.sin(v.turn)
        x = p[:, 0] * cos - p[:, 1] * sin + v.x
        y = p[:, 0] * sin + p[:, 1] * cos + v.y
        half = SIDE / 2
        return list(zip(((x + 1) * half).tolist(), ((y + 1) * half).tolist(), strict=True))

    def poly(self, points: Points, ink: object) -> None:
        self._draw.polygon(self._place(points), fill=self._part(ink))

    def blob(self, points: Points, ink: object) -> None:
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
        self, x: float, y: float, rx: float, ry: float, ink: object, degrees: float = 0
    ) -> None:
        a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        turn = np.deg2rad(degrees)
        u, v = rx * np.cos(a), ry * np.sin(a)
        px = x + u * np.cos(turn) - v * np.sin(turn)
        py = y + u * np.sin(turn) + v * np.cos(turn)
        self.poly(list(zip(px.tolist(), py.tolist(), strict=True)), ink)

    def line(self, points: Points, width: float, ink: object) -> None:
        part, placed = self._part(ink), self._place(points)
        pixels = max(2, round(width * self._view.scale * SIDE / 2))
        self._draw.line(placed, fill=part, width=pixels, joint="curve")
        r = pixels / 2 - 0.5
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=part)

    def mark(self, who: Instance, view: View, first_part: int) -> None:
        """Stripes, spots or a second half on the main parts drawn since `first_part`."""
        parts = np.array(self._image)
        mains = [i for i in range(first_part, len(self._roles)) if self._roles[i] == "main"]
        pattern = marking(who, view)
        chosen = np.isin(parts, mains) & pattern
        part = self._part("mark")
        parts[chosen] = part
        self._image = Image.fromarray(parts)
        self._draw = ImageDraw.Draw(self._image)

    def parts(self) -> Bytes:
        return np.array(self._image)


def marking(who: Instance, view: View) -> Mask:
    """Where the marking falls on the canvas, (side, side)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / (SIDE / 2) - 1
    x, y = x - view.x, y - view.y
    cos, sin = np.cos(-view.turn), np.sin(-view.turn)
    u, v = (x * cos - y * sin) / view.scale, (x * sin + y * cos) / view.scale
    if view.mirrored:
        u = -u
    cos, sin = np.cos(who.marking_turn), np.sin(who.marking_turn)
    u, v = u * cos - v * sin, u * sin + v * cos
    size = who.marking_size
    if who.marking == "stripes":
        return np.mod(u / size, 1) < 0.45
    if who.marking == "spots":
        row = np.floor(v / size)
        du = np.mod(u / size + 0.5 * np.mod(row, 2), 1) - 0.5
        return np.hypot(du, np.mod(v / size, 1) - 0.5) < 0.33
    if who.marking == "halves":
        return u > 0.05
    return np.zeros(u.shape, bool)


@dataclass
class Scene:
    """Parts and their colours; what styles look at is computed once, when asked for."""

    parts: Bytes  # (side, side)
    colours: Array  # (parts, 3), 0..1
    object_parts: Mask  # (parts,)

    @cached_property
    def colour(self) -> Array:
        """(side, side, 3), 0..1."""
        return self.colours[self.parts]

    @cached_property
    def objects(self) -> Mask:
        """(side, side): where an object is, rather than background."""
        return self.object_parts[self.parts]

    @cached_property
    def light(self) -> Array:
        """Luminance, (side, side), 0..1."""
        table = (self.colours @ np.array([0.3, 0.59, 0.11], np.float32)).astype(np.float32)
        return table[self.parts]

    def edges(self, width: int, objects_only: bool = False) -> Mask:
        """Borders between parts, (side, side), `width` pixels wide (odd)."""
        p = self.parts
        if objects_only:  # keep the borders that touch an object
            p = np.where(self.objects, p, 0).astype(np.uint8)
        edge = np.zeros(p.shape, np.uint8)
        edge[:, 1:] |= (p[:, 1:] != p[:, :-1]).view(np.uint8)
        edge[1:] |= (p[1:] != p[:-1]).view(np.uint8)
        if width > 1:
            edge = np.asarray(Image.fromarray(edge).filter(ImageFilter.MaxFilter(width)))
        return edge.astype(bool)


Context = Callable[[Canvas, np.random.Generator], None]
CONTEXTS: dict[str, Context] = {}


def setting(name: str) -> Callable[[Context], Context]:
    def register(draw: Context) -> Context:
        CONTEXTS[name] = draw
        return draw

    return register


def _band(pen: Canvas, y0: float, y1: float, ink: tuple[int, int, int]) -> None:
    pen.poly([(-1.1, y0), (1.1, y0), (1.1, y1), (-1.1, y1)], ink)


@setting("on a beach")
def beach(pen: Canvas, rng: np.random.Generator) -> None:
    sea = rng.uniform(-0.15, 0.05)
    _band(pen, -1.1, sea, (168, 218, 244))
    sun = rng.choice([-1, 1]) * rng.uniform(0.6, 0.75)
    pen.ellipse(sun, -0.72, 0.2, 0.2, (252, 222, 96))
    _band(pen, sea, 0.42, (52, 138, 190))
    pen.poly([(-1.1, 0.42), (0, 0.32), (1.1, 0.46), (1.1, 1.1), (-1.1, 1.1)], (238, 214, 156))


@setting("in the snow")
def snow(pen: Canvas, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (150, 176, 206))
    pen.blob(
        [(-1.4, 1.4), (-1.3, 0.5), (-0.4, 0.35), (0.5, 0.5), (1.4, 0.4), (1.4, 1.4)],
        (248, 250, 254),
    )
    for x, y in rng.uniform(-1, 1, (26, 2)):
        pen.ellipse(float(x), float(y) * 0.9 - 0.1, 0.045, 0.045, (252, 253, 255))


@setting("in a forest")
def forest(pen: Canvas, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (186, 218, 186))
    for x in (-0.95, -0.62, -0.25, 0.22, 0.6, 0.95):
        x = float(x + rng.uniform(-0.07, 0.07))
        pen.poly([(x - 0.06, -0.2), (x + 0.06, -0.2), (x + 0.06, 0.6), (x - 0.06, 0.6)], BROWN)
        tall = float(rng.uniform(0.75, 1.0))
        pen.poly([(x - 0.26, 0.3), (x, -tall), (x + 0.26, 0.3)], (44, 112, 66))
    _band(pen, 0.55, 1.1, (104, 150, 76))


@setting("at night")
def night(pen: Canvas, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (26, 32, 78))
    moon = float(rng.choice([-1, 1]) * rng.uniform(0.6, 0.72))
    pen.ellipse(moon, -0.68, 0.2, 0.2, (246, 240, 196))
    pen.ellipse(moon + 0.1, -0.72, 0.17, 0.17, (26, 32, 78))
    for x, y in rng.uniform(-1, 1, (16, 2)):
        pen.ellipse(float(x), float(y) * 0.75 - 0.25, 0.028, 0.028, (250, 246, 220))
    _band(pen, 0.72, 1.1, (30, 56, 62))


@setting("in a city")
def city(pen: Canvas, rng: np.random.Generator) -> None:
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
def table(pen: Canvas, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (216, 226, 206))
    for x in np.arange(-1, 1.1, 0.34):
        pen.line([(float(x), -1.1), (float(x), 0.6)], 0.07, (196, 210, 188))
    _band(pen, 0.52, 1.1, (172, 112, 62))
    _band(pen, 0.52, 0.62, (206, 148, 92))


@setting("in the mountains")
def mountains(pen: Canvas, rng: np.random.Generator) -> None:
    _band(pen, -1.1, 1.1, (190, 224, 246))
    for x, half in ((-0.7, 0.75), (0.75, 0.8), (0.05, 0.7)):
        x, top = x + float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.9, -0.65))
        pen.poly([(x - half, 0.6), (x, top), (x + half, 0.6)], GREY)
        pen.poly([(x - half * 0.27, top + 0.4), (x, top), (x + half * 0.27, top + 0.4)], LIGHT)
    _band(pen, 0.5, 1.1, GREEN)


def compose(
    actors: Sequence[tuple[Instance, View]], context: str | None, rng: np.random.Generator
) -> Scene:
    """Background, then the actors from first to last. rng: details of the background."""
    pen = Canvas()
    pen.look(View(scale=1.0), {}, False)
    if context is None:
        _band(pen, -1.1, 1.1, BACKDROPS[int(rng.integers(len(BACKDROPS)))])
    else:
        CONTEXTS[context](pen, rng)
    for who, view in actors:
        first = len(pen.colours)
        pen.look(view, who.palette, True)
        CLASSES[who.kind](pen, np.random.default_rng(who.shape_seed))
        if who.marking != "plain":
            pen.mark(who, view, first)
    return Scene(
        pen.parts(),
        np.asarray(pen.colours, np.float32) / 255,
        np.asarray(pen.is_object, bool),
    )
