"""Any picture as training wants it: RGB, scaled to the resolution's area, sides of 64."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unziplora.errors import BadInput
from unziplora.training.host import SizeIds

SMALLEST_SIDE = 64  # pixels; below it there is nothing to learn from
MOST_PIXELS = 100_000_000  # refused before decoding: a bomb, or a scan to scale down first
MOST_BYTES = 500_000_000
GRID = 64  # the VAE's factor 8 times the UNet's two halvings, with room for an even number


@dataclass(frozen=True)
class Picture:
    """image: RGB, upright, on white. notes: sentences on what was done to it."""

    image: Image.Image
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """pixels: (1, 3, h, w), fp32 in [-1, 1]; sizes: what SDXL is told of it."""

    pixels: Tensor
    sizes: SizeIds


def open_picture(source: str | Path | bytes) -> Picture:
    """Reads PNG, JPEG, WebP and whatever else Pillow knows, in any mode.

    Raises BadInput for what is no picture, is damaged, too small, or too large to be decoded.
    """
    data = source if isinstance(source, bytes) else _read(Path(source))
    shown = "The picture" if isinstance(source, bytes) else Path(source).name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit below
            image = Image.open(io.BytesIO(data))
        _check_size(shown, image.size)
        frames = getattr(image, "n_frames", 1)
        image.load()
    except BadInput:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{shown} is not a picture that can be read. Choose a PNG, JPEG or WebP file."
        ) from error
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise BadInput(
            f"{shown} is damaged or cut off. Open it in a picture program and save it again."
        ) from error
    notes = (f"{shown} is animated: its first frame is used.",) if frames > 1 else ()
    return Picture(_rgb(ImageOps.exif_transpose(image)), notes)


def fit(picture: Picture, resolution: int, crop: Literal["aspect", "centre"]) -> Fitted:
    """Scaled to cover the target and cut to it around the centre.

    "aspect": the target has the picture's own aspect ratio and about resolution^2 pixels, its sides
    multiples of 64. "centre": a square of the resolution (to a multiple of 64).
    """
    width, height = picture.image.size
    if crop == "centre":
        target = (_to_grid(resolution), _to_grid(resolution))
    else:
        scale = resolution / (width * height) ** 0.5
        target = (_to_grid(width * scale), _to_grid(height * scale))
    cover = max(target[0] / width, target[1] / height)
    scaled = (max(target[0], round(width * cover)), max(target[1], round(height * cover)))
    left, top = ((scaled[i] - target[i]) // 2 for i in range(2))
    image = picture.image.resize(scaled, Image.Resampling.LANCZOS)
    image = image.crop((left, top, left + target[0], top + target[1]))
    values = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)
    return Fitted(
        values.permute(2, 0, 1)[None].contiguous(),
        SizeIds(original=(height, width), crop=(top, left), target=(target[1], target[0])),
    )


def _to_grid(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise BadInput(f"{path.name} is a folder, not a picture. Choose one picture.")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise BadInput(
                f"{path.name} has {size / 1e6:.0f} MB, too much for a picture. "
                "Scale it down in a picture program first."
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"There is no picture {path}. Check the name.") from error
    except OSError as error:
        raise BadInput(
            f"The picture {path.name} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if not data:
        raise BadInput(f"{path.name} is empty. Choose another picture.")
    return data


def _check_size(shown: str, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < SMALLEST_SIDE:
        raise BadInput(
            f"{shown} has {width} x {height} pixels, too few to learn from. "
            f"Choose one with at least {SMALLEST_SIDE} on each side."
        )
    if width * height > MOST_PIXELS:
        raise BadInput(
            f"{shown} has {width} x {height} pixels, more than {MOST_PIXELS / 1e6:.0f} million. "
            "Scale it down in a picture program first."
        )


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
    """A 16-bit or float picture scaled, where Pillow's own conversion would clip it."""
    values = np.asarray(image, dtype=np.float32)
    most = 1.0 if image.mode == "F" and values.max() <= 1 else 65535.0
    if image.mode != "F" and values.max() <= 255:
        most = 255.0
    return Image.fromarray((values / most * 255).clip(0, 255).astype(np.uint8))
