"""Transparency: which part of an image it leaves, and the ground that shows that part."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unziplora.errors import InvalidInput

_CLOSE = 24  # levels: a colour this near to the ground cannot be seen on it
_HARDLY_ANY = 0.02  # of what is visible, so much may differ from the ground and still be lost


def alpha_mask(image: Image.Image) -> Image.Image | None:
    """(mode L) 255 where the image is opaque, 0 where nothing is shown; None where all is opaque.

    image: in any mode, with an alpha channel, a transparent colour or neither.
    """
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def on_ground(rgb: Image.Image, mask: Image.Image, shown: str) -> tuple[Image.Image, str]:
    """RGB on white, or on black where white would hide it; and a sentence that says so.

    Raises InvalidInput where nothing at all is visible.
    """
    if mask.getextrema() == (0, 0):
        raise InvalidInput(
            f"{shown} is transparent everywhere, so nothing of it is seen. Choose another image."
        )
    hidden = _lost_on_white(rgb, mask)
    ground = Image.new("RGB", rgb.size, "black" if hidden else "white")
    ground.paste(rgb, mask=mask)
    if hidden:
        return ground, f"{shown} is white on a transparent ground: black was put behind it."
    return ground, f"{shown} is transparent in parts: white was put behind it."


def _lost_on_white(rgb: Image.Image, mask: Image.Image) -> bool:
    """Whether almost all that is visible is almost white; looked at in small."""
    size = (min(rgb.width, 1024), min(rgb.height, 1024))
    near = Image.Resampling.NEAREST
    colours = np.asarray(rgb.resize(size, near), dtype=np.int16)
    weight = np.asarray(mask.resize(size, near), dtype=np.float64)
    visible = (255 - colours.min(axis=-1)) > _CLOSE
    return bool((weight * visible).sum() <= _HARDLY_ANY * weight.sum())
