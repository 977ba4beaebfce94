"""Scores as an image: a row a measure, a dot with its error a pair. Pillow only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from unziplora.images.font import font_of
from unziplora.scores.measure import Mean

_INK, _PAPER, _QUIET, _LINE = (26, 26, 30), (255, 255, 255), (96, 98, 108), (222, 223, 228)
# Okabe and Ito's colours, which most colour-blind people can tell apart
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233))
_LABELS, _WIDTH, _GAP, _DOT = 300, 560, 14, 5
_BETWEEN = 16  # pixels from one pair's dot to the next one's, below it
_ROW_GAP = 18


def plot(rows: Sequence[tuple[str, Mapping[str, Mean]]]) -> Image.Image:
    """rows: a measure's name, and its mean by pair; at least one of each. The bars are one standard
    error to each side."""
    pairs = list(rows[0][1])
    font = font_of(14)
    row_height = _BETWEEN * len(pairs) + _ROW_GAP
    top = _GAP + (len(pairs) + 1) * 20
    height = top + row_height * len(rows) + 40
    page = Image.new("RGB", (_LABELS + _WIDTH + 3 * _GAP, height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_GAP, _GAP), "cosine with the image trained on, ± standard error", _QUIET, font)
    for number, name in enumerate(pairs):
        y = _GAP + (number + 1) * 20
        _dot(pen, _GAP + _DOT, y + 9, _colour(number))
        pen.text((_GAP + 18, y), name, _INK, font)
    low, high, step = _range([mean for _, means in rows for mean in means.values()])

    def x(value: float) -> float:
        return _LABELS + _GAP + (value - low) / (high - low) * _WIDTH

    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        pen.line((x(value), top, x(value), height - 30), _LINE)
        pen.text((x(value) - 12, height - 26), f"{value:.2f}", _QUIET, font)
    for number, (measure, means) in enumerate(rows):
        y = top + number * row_height
        pen.line((_GAP, y, page.width - _GAP, y), _LINE)
        pen.text((_GAP, y + row_height / 2 - 9), measure, _INK, font)
        for place, mean in enumerate(means.values()):
            at = y + _ROW_GAP / 2 + _BETWEEN * (place + 0.5)
            if not math.isnan(mean.error):
                ends = (x(mean.value - mean.error), at, x(mean.value + mean.error), at)
                pen.line(ends, _colour(place), 2)
            _dot(pen, x(mean.value), at, _colour(place))
    return page


def _colour(number: int) -> tuple[int, int, int]:
    return _COLOURS[number % len(_COLOURS)]


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), colour)


def _range(means: Sequence[Mean]) -> tuple[float, float, float]:
    """Ends and step of the axis: round numbers around every bar."""
    errors = [0.0 if math.isnan(mean.error) else mean.error for mean in means]
    low = min(mean.value - error for mean, error in zip(means, errors, strict=True))
    high = max(mean.value + error for mean, error in zip(means, errors, strict=True))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if high - low <= 8 * s)
    low = math.floor(low / step) * step
    return low, max(math.ceil(high / step) * step, low + step), step
