"""Noise fields and cell divisions that the styles are made of, cached because they are reused."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]
Mask = NDArray[np.bool_]

BANK = 6  # fields kept per kind; a random crop of one is as good as a new one


class Cells(NamedTuple):
    """A division of the canvas. All arrays (side, side); centres in pixels."""

    centre_y: Ints
    centre_x: Ints
    shade: Array  # one random number in 0..1 per cell
    rim: Array  # distance to the next cell, in cells: 0 on the border
    from_centre: Array  # distance to the cell's own centre, in cells


def blur(field: Array, radius: float) -> Array:
    """Gaussian blur of (side, side) or (side, side, 3) values in 0..1; radius in pixels."""
    image = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


@lru_cache(maxsize=256)
def _noise_bank(side: int, cell: int, index: int) -> Array:
    rng = np.random.default_rng((side, cell, index))
    coarse = Image.fromarray(rng.uniform(0, 1, (side // cell + 3,) * 2).astype(np.float32))
    fine = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return np.clip(fine, 0, 1)


def noise(side: int, cell: int, rng: np.random.Generator) -> Array:
    """Smooth noise in 0..1, (side, side), with features of about `cell` pixels."""
    field = _noise_bank(side + 64, cell, int(rng.integers(BANK)))
    y, x = rng.integers(0, 64, 2)
    field = field[y : y + side, x : x + side]
    return field[:, ::-1] if rng.random() < 0.5 else field


def grid(side: int) -> tuple[Array, Array]:
    """Pixel coordinates y, x, each (side, side)."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    return y, x


@lru_cache(maxsize=256)
def _cells_bank(
    side: int, size: float, aspect: float, degrees: int, jitter: float, index: int
) -> Cells:
    """Voronoi cells of a jittered grid, stretched by `aspect` along `degrees`."""
    y, x = grid(side)
    a = np.deg2rad(degrees)
    cos, sin = np.cos(a), np.sin(a)
    u = (x * cos + y * sin) / (size * aspect)
    v = (-x * sin + y * cos) / size
    rng = np.random.default_rng((side, int(size * 16), index))
    count = int(3 * side / size) + 8
    offset = rng.uniform(0.5 - jitter, 0.5 + jitter, (count, count, 2)).astype(np.float32)
    shade = rng.uniform(0, 1, (count, count)).astype(np.float32)
    half = count // 2
    iu, iv = np.floor(u).astype(int), np.floor(v).astype(int)
    first = np.full(u.shape, 9.0, np.float32)
    second = first.copy()
    best_u, best_v, best_shade = u.copy(), v.copy(), u.copy()
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            ku, kv = (iu + du + half) % count, (iv + dv + half) % count
            cu, cv = iu + du + offset[kv, ku, 0], iv + dv + offset[kv, ku, 1]
            far = np.maximum(abs(u - cu), abs(v - cv)) if jitter == 0 else np.hypot(u - cu, v - cv)
            nearer = far < first
            second = np.where(nearer, first, np.minimum(second, far))
            first = np.where(nearer, far, first)
            best_u, best_v = np.where(nearer, cu, best_u), np.where(nearer, cv, best_v)
            best_shade = np.where(nearer, shade[kv, ku], best_shade)
    cx = (best_u * aspect * cos - best_v * sin) * size
    cy = (best_u * aspect * sin + best_v * cos) * size
    return Cells(
        cy.astype(np.int32),
        cx.astype(np.int32),
        best_shade.astype(np.float32),
        (second - first).astype(np.float32),
        first.astype(np.float32),
    )


def cells(
    side: int,
    size: float,
    rng: np.random.Generator,
    aspect: float = 1.0,
    degrees: float = 0.0,
    jitter: float = 0.4,
) -> Cells:
    """A crop of a cached division: cells of `size` pixels, `aspect` times longer along `degrees`.

    Sizes and angles are rounded (half a pixel, 15 degrees) so that the cache stays small.
    """
    shift = 32
    whole = _cells_bank(
        side + shift,
        round(size * 2) / 2,
        aspect,
        int(round(degrees / 15) * 15) % 180,
        jitter,
        int(rng.integers(BANK)),
    )
    y, x = (int(v) for v in rng.integers(0, shift, 2))
    cut = slice(y, y + side), slice(x, x + side)
    return Cells(
        np.clip(whole.centre_y[cut] - y, 0, side - 1),
        np.clip(whole.centre_x[cut] - x, 0, side - 1),
        whole.shade[cut],
        whole.rim[cut],
        whole.from_centre[cut],
    )
