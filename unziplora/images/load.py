"""Any image as training wants it: RGB, scaled to the resolution's area, sides of 64."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import SizeIds
from unziplora.images.colour import to_srgb
from unziplora.images.formats import OWN_TEXT, open_file
from unziplora.images.mask import alpha_mask, on_ground

LONGEST_SIDE = 4  # times the shorter one: SDXL was trained on 512 x 2048 at most
_ORIENTATION = 0x0112  # EXIF
_OTHER_SHAPE = 0.02  # of aspect ratios, so much may differ by rounding
_WHOLE = OWN_TEXT + "what is hidden is known"  # key of a PNG's text
GRID = 64  # the VAE's factor 8 times the UNet's two halvings, with room for an even number


@dataclass(frozen=True)
class SourceImage:
    """image: RGB, sRGB, upright, on a ground. notes: sentences on what was done to it. mask: (mode
    L) 255 where the image was opaque, or None where it was everywhere. whole: the same without a
    ground, where what the mask hides is a part of the image (`with_mask`)."""

    image: Image.Image
    notes: tuple[str, ...] = ()
    mask: Image.Image | None = None
    whole: SourceImage | None = None


@dataclass(frozen=True)
class FittedImage:
    """pixels: (1, 3, h, w), fp32 in [-1, 1]; sizes: what SDXL is conditioned on. mask: (1, 1, h,
    w), fp32 in [0, 1], the source's, scaled and cut as it is."""

    pixels: Tensor
    sizes: SizeIds
    mask: Tensor | None = None


def open_image(
    source: str | Path | bytes, mask_image: str | Path | bytes | None = None
) -> SourceImage:
    """Reads PNG, JPEG, WebP, GIF, BMP or TIFF, and AVIF where Pillow does, in any mode.
    mask_image: as `with_mask` takes it.

    Raises InvalidInput for what is no image, is damaged, too small, or too large to be decoded.
    """
    if mask_image is not None:
        source = with_mask(source, mask_image)
    shown = "The image" if isinstance(source, bytes) else Path(source).name
    opened = open_file(source)
    notes = [*opened.notes]
    mask = alpha_mask(opened.image)
    rgb, colour_notes = to_srgb(opened.image, shown, opened.profile, opened.coding)
    notes += colour_notes
    if opened.animated:
        notes.append(f"{shown} is animated: its first frame is used.")
    if max(rgb.size) > LONGEST_SIDE * min(rgb.size):
        notes.append(f"{shown} is longer than {LONGEST_SIDE}:1: its middle is used.")
    upright = partial(_upright, stored=opened.image)
    if mask is None:
        return SourceImage(upright(rgb), tuple(notes))
    seen, what = on_ground(rgb, mask, shown)
    mask = upright(mask)
    known = _WHOLE in opened.image.info
    whole = SourceImage(upright(rgb), tuple(notes), mask) if known else None
    return SourceImage(upright(seen), (*notes, what), mask, whole)


def with_mask(image: str | Path | bytes, mask: str | Path | bytes) -> bytes:
    """A PNG of the image whose transparency is the mask: white shows, black hides. A mask of
    another size is scaled; what was transparent already stays so. What is hidden stays in the
    file, for a training with `mask_content`.

    Raises InvalidInput as `open_image`, and for a mask of another shape.
    """
    source, shown = open_image(image), open_image(mask).image.convert("L")
    width, height = source.image.size
    if abs(shown.width * height - shown.height * width) > _OTHER_SHAPE * shown.width * height:
        raise InvalidInput(
            f"The mask has {shown.width} x {shown.height} pixels, the image {width} x {height}. "
            "Choose a mask of the same shape."
        )
    shown = shown.resize((width, height), Image.Resampling.BILINEAR)
    if source.mask is not None:
        shown = ImageChops.darker(shown, source.mask)
    masked, data, known = source.image.copy(), io.BytesIO(), PngInfo()
    masked.putalpha(shown)
    known.add_text(_WHOLE, "yes")
    masked.save(data, "PNG", compress_level=1, pnginfo=known)
    return data.getvalue()


def fit(source: SourceImage, resolution: int, crop: Literal["aspect", "centre"]) -> FittedImage:
    """Scaled to cover the target and cut to it around the centre.

    "aspect": the target has the image's own aspect ratio and about resolution^2 pixels, its sides
    multiples of 64; of one that is longer than 4:1 the middle is kept. "centre": a square of the
    resolution (to a multiple of 64).
    """
    width, height = source.image.size
    if crop == "centre":
        target = (_to_grid(resolution), _to_grid(resolution))
    else:
        aspect = min(max(width / height, 1 / LONGEST_SIDE), LONGEST_SIDE)
        target = (_to_grid(resolution * aspect**0.5), _to_grid(resolution / aspect**0.5))
    cover = max(target[0] / width, target[1] / height)
    scaled = (max(target[0], round(width * cover)), max(target[1], round(height * cover)))
    left, top = ((scaled[i] - target[i]) // 2 for i in range(2))
    part = (left, top, left + target[0], top + target[1])
    image = source.image.resize(scaled, Image.Resampling.LANCZOS).crop(part)
    values = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)
    mask = None
    if source.mask is not None:
        shown = source.mask.resize(scaled, Image.Resampling.BILINEAR).crop(part)
        mask = torch.from_numpy(np.asarray(shown, dtype=np.float32) / 255)[None, None]
    return FittedImage(
        values.permute(2, 0, 1)[None].contiguous(),
        SizeIds(original=(height, width), crop=(top, left), target=(target[1], target[0])),
        mask,
    )


def _to_grid(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


def _upright(image: Image.Image, stored: Image.Image) -> Image.Image:
    """Turned as the camera's mark in the stored image says, where there is one that can be read;
    with no profile, and nothing else of the file."""
    turned = image.copy()
    with contextlib.suppress(Exception):  # the mark is damaged, the image is not
        turned.getexif()[_ORIENTATION] = stored.getexif().get(_ORIENTATION, 1)
        turned = ImageOps.exif_transpose(turned)
    turned.info = {}
    return turned
