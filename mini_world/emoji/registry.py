"""The styles' table: names that people use, the family word in each, what may be promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mini_world.emoji.scene import EmojiScene
from mini_world.textures import Array

# (scene, traits, rng) -> (side, side, 3) 0..1. traits: seeded by the style's variant (angle, ink,
# paper: the same in every image of that variant); rng: seeded by the image (where a blot falls).
Render = Callable[[EmojiScene, np.random.Generator, np.random.Generator], Array]


@dataclass(frozen=True)
class Style:
    name: str  # as captions say it: "... in NAME style"; its last word is its family
    render: Render
    keeps_colour: bool  # may a caption promise a colour?
    held_out: bool = False

    @property
    def family(self) -> str:
        return self.name.split(" ")[-1] if self.name else ""


STYLES: dict[str, Style] = {}


def style(name: str, colour: bool, held_out: bool = False) -> Callable[[Render], Render]:
    """Enter a renderer under a name."""

    def register(render: Render) -> Render:
        STYLES[name] = Style(name, render, colour, held_out)
        return render

    return register
