"""Any image as training wants it: RGB, scaled to the resolution's area, sides of 64."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import SizeIds

SMALLEST_SIDE = 64  # pixels; below it there is nothing to learn from
MOST_PIXELS = 100_000_000  # refused before decoding: a bomb, or a scan to scale down first
MOST_BYTES = 500_000_000
LONGEST_SIDE = 4  # times the shorter one: SDXL was trained on 512 x 2048 at most
# Not every format that Pillow knows: PostScript, for one, would start another program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
GRID = 64  # the VAE's factor 8 times the UNet's two halvings, with room for an even number


@dataclass(frozen=True)
class SourceImage:
    """image: RGB, upright, on white. notes: sentences on what was done to it."""

    image: Image.Image
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FittedImage:
    """pixels: (1, 3, h, w), fp32 in [-1, 1]; sizes: what SDXL is told of it."""

    pixels: Tensor
    sizes: SizeIds


def open_image(source: str | Path | bytes) -> SourceImage:
    """Reads PNG, JPEG, WebP, GIF, BMP or TIFF, in any mode.

    Raises InvalidInput for what is no image, is damaged, too small, or too large to be decoded.
    """
    data = source if isinstance(source, bytes) else _read(Path(source))
    shown = "The image" if isinstance(source, bytes) else Path(source).name
    try:
        with _own_rules():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(shown, image.size)
            # a phone's JPEG may hold a second image (MPO), which is no animation
            # is_animated, because n_frames reads a GIF's every frame
            animated = image.format != "MPO" and getattr(image, "is_animated", False)
            image.load()
            rgb = _rgb(_upright(image))
    except InvalidInput:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(f"{shown} has") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(
            f"{shown} is not an image that can be read. Choose a PNG, JPEG or WebP file."
        ) from error
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise InvalidInput(
            f"{shown} is damaged or cut off. Open it in an image program and save it again."
        ) from error
    notes = []
    if animated:
        notes.append(f"{shown} is animated: its first frame is used.")
    if max(rgb.size) > LONGEST_SIDE * min(rgb.size):
        notes.append(f"{shown} is longer than {LONGEST_SIDE}:1: its middle is used.")
    return SourceImage(rgb, tuple(notes))


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
    image = source.image.resize(scaled, Image.Resampling.LANCZOS)
    image = image.crop((left, top, left + target[0], top + target[1]))
    values = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)
    return FittedImage(
        values.permute(2, 0, 1)[None].contiguous(),
        SizeIds(original=(height, width), crop=(top, left), target=(target[1], target[0])),
    )


def _to_grid(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


@contextlib.contextmanager
def _own_rules() -> Iterator[None]:
    """Pillow with our limits, not those that a host has set for all of its process."""
    earlier = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd EXIF: ours say it better
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = earlier


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InvalidInput(f"{path.name} is a folder, not an image. Choose one image.")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InvalidInput(
                f"{path.name} has {size / 1e6:.0f} MB, too much for an image. "
                "Scale it down in an image program first."
            )
        data = path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidInput(f"There is no image {str(path)!r}. Check the name.") from error
    except OSError as error:
        raise InvalidInput(
            f"The image {path.name} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if not data:
        raise InvalidInput(f"{path.name} is empty. Choose another image.")
    return data


def _check_size(shown: str, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < SMALLEST_SIDE:
        raise InvalidInput(
            f"{shown} has {width} x {height} pixels, too few to learn from. "
            f"Choose one with at least {SMALLEST_SIDE} on each side."
        )
    if width * height > MOST_PIXELS:
        raise _too_large(f"{shown} has {width} x {height} pixels:")


def _too_large(what: str) -> InvalidInput:
    return InvalidInput(
        f"{what} more than {MOST_PIXELS / 1e6:.0f} million pixels. "
        "Scale it down in an image program first."
    )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera's mark says, where there is one that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the mark is damaged, the image is not
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """RGB in 8 bits; what is transparent shows white."""
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit or float image scaled, where Pillow's own conversion would clip it."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    most = 65535.0
    if (image.mode == "I" and values.max() <= 255) or (image.mode == "F" and values.max() > 1):
        most = 255.0  # both modes say nothing of their range
    elif image.mode == "F":
        most = 1.0
    return Image.fromarray((values / most * 255).round().clip(0, 255).astype(np.uint8))
