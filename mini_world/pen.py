"""What the classes of the drawn world are drawn with: a pen, its colours, and parts they share.

Every class is one function. It draws parts on a canvas in object coordinates (x right, y down,
the object fills about -1..1), back to front, and takes its shape details from a generator that
the instance seeds: the same instance always has the same details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Points = Sequence[tuple[float, float]]
Ink = "str | tuple[int, int, int]"


class Pen(Protocol):
    """What a class may draw with. `ink` is a role of the palette or a fixed colour (0..255)."""

    def poly(self, points: Points, ink: object) -> None: ...

    def blob(self, points: Points, ink: object) -> None: ...

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, ink: object, degrees: float = 0
    ) -> None: ...

    def line(self, points: Points, width: float, ink: object) -> None: ...


Draw = Callable[[Pen, np.random.Generator], None]

DARK, LIGHT = (38, 36, 44), (246, 244, 238)
GREEN, BROWN, GREY, GLASS = (74, 150, 76), (124, 84, 52), (150, 152, 160), (164, 214, 236)


def known_as(name: str, classes: dict[str, Draw]) -> Callable[[Draw], Draw]:
    """Adds a class's function to `classes`."""

    def register(draw: Draw) -> Draw:
        classes[name] = draw
        return draw

    return register


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def eye(pen: Pen, x: float, y: float, r: float) -> None:
    pen.ellipse(x, y, r, r * 1.15, LIGHT)
    pen.ellipse(x + r * 0.2, y + r * 0.1, r * 0.55, r * 0.65, DARK)
