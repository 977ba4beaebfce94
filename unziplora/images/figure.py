"""Images with captions in rows: the kind of figure that the paper has. Pillow only."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from unziplora.images.font import Font, font_of

_INK, _PAPER, _QUIET = (26, 26, 30), (255, 255, 255), (96, 98, 108)
_GAP = 10


@dataclass(frozen=True)
class Cell:
    """An image and what is said below it."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Row:
    """A heading and images side by side."""

    heading: str
    cells: Sequence[Cell]


def figure(rows: Sequence[Row], *, side: int = 256) -> Image.Image:
    """All rows below each other; every image is fitted into a square of `side` pixels."""
    heading, caption = font_of(max(13, side // 12)), font_of(max(11, side // 17))
    captions = [[_wrapped(cell.caption, caption, side) for cell in row.cells] for row in rows]
    heading_height = _height(heading, "Ag") + _GAP
    caption_heights = [max(_height(caption, text) for text in line) for line in captions]
    columns = max(len(row.cells) for row in rows)
    width = _GAP + columns * (side + _GAP)
    height = _GAP + sum(heading_height + side + h + 2 * _GAP for h in caption_heights)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    y = _GAP
    for row, texts, caption_height in zip(rows, captions, caption_heights, strict=True):
        pen.text((_GAP, y), row.heading, fill=_INK, font=heading)
        y += heading_height
        for n, (cell, text) in enumerate(zip(row.cells, texts, strict=True)):
            x = _GAP + n * (side + _GAP)
            fitted = _fitted(cell.image, side)
            page.paste(fitted, (x + (side - fitted.width) // 2, y + (side - fitted.height) // 2))
            pen.multiline_text((x, y + side + 3), text, fill=_QUIET, font=caption, spacing=2)
        y += side + caption_height + 2 * _GAP
    return page


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """As large as fits; an image that is smaller grows without blur by whole steps if it can."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    whole = scale >= 1 and float(scale).is_integer()
    kind = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, kind)


def _wrapped(text: str, font: Font, side: int) -> str:
    width = max(1.0, font.getlength("nnnnnnnnnn") / 10)
    return "\n".join(textwrap.wrap(text, max(8, int(side / width)))[:3])


def _height(font: Font, text: str) -> int:
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    return int(pen.multiline_textbbox((0, 0), text or "A", font=font, spacing=2)[3]) + 4
