"""Every style of the emoji world, and a scene in one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mini_world import styles as drawn
from mini_world.emoji import drawings, objects, paintings, prints  # noqa: F401  (they register)
from mini_world.emoji.registry import STYLES, style
from mini_world.emoji.scene import EmojiScene
from mini_world.scenes import IMAGE_SIDE

for _name, _render, _colour, _held_out in (
    ("", drawn.neutral, True, False),
    ("line drawing", drawn.line_drawing, False, False),
    ("pencil drawing", drawn.pencil_hatching, False, False),
    ("chalk drawing", drawn.chalk, False, False),
    ("oil painting", drawn.oil_painting, True, False),
    ("comic print", drawn.pop_art, True, False),
    ("linocut print", drawn.linocut, False, False),
    ("mosaic tiles", drawn.mosaic, True, False),
    ("stained glass", drawn.stained_glass, True, False),
    ("cut paper", drawn.paper_cut, True, False),
    ("pixel art", drawn.pixel_art, True, False),
    ("low poly art", drawn.low_poly, True, False),
    ("synthwave art", drawn.synthwave, False, False),
    ("neon sign", drawn.neon, False, False),
    ("blueprint drawing", drawn.blueprint, False, False),
    ("sepia photo", drawn.sepia, False, False),
    ("cartoon drawing", drawn.cartoon, True, False),
    ("riso print", drawn.riso, False, True),
    ("thermal photo", drawn.thermal, False, True),
    ("clay sculpture", drawn.clay, True, True),
    ("ink wash painting", drawn.ink_wash, False, True),
):
    style(_name, colour=_colour, held_out=_held_out)(_render)

TRAINING_STYLES = sorted(name for name, known in STYLES.items() if name and not known.held_out)
HELD_OUT_STYLES = sorted(name for name, known in STYLES.items() if known.held_out)
FAMILIES = sorted({STYLES[name].family for name in TRAINING_STYLES})
_NUMBERS = {name: number for number, name in enumerate(sorted(STYLES))}


def stylise(scene: EmojiScene, name: str, variant: int, rng: np.random.Generator) -> Any:
    """The scene in a style's variant: (IMAGE_SIDE, IMAGE_SIDE, 3) uint8, half the canvas' side."""
    traits = np.random.default_rng((_NUMBERS[name], variant))
    canvas = np.asarray(STYLES[name].render(scene, traits, rng), np.float32)
    half = canvas.reshape(IMAGE_SIDE, 2, IMAGE_SIDE, 2, 3).mean((1, 3))
    return (np.clip(half, 0, 1) * 255 + 0.5).astype(np.uint8)
