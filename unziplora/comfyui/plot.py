"""The loss of a run as an image."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_SIZE, _LEFT, _RIGHT, _TOP, _BOTTOM = (512, 256), 64, 20, 24, 32
_GROUND, _AXIS, _EACH, _MEAN = "#16181d", "#9aa3b2", "#3d5a80", "#f2a65a"
_TICKS = 5


def loss_plot(steps: Sequence[int], losses: Sequence[float], planned: int) -> Image.Image:
    """Each step's loss, and above it the mean of the steps around it (a twentieth of the run).

    steps: counted from 1, with the loss of each; planned: how many the run has.
    """
    image = Image.new("RGB", _SIZE, _GROUND)
    draw = ImageDraw.Draw(image)
    low, high = _limits(losses)

    def place(step: float, loss: float) -> tuple[float, float]:
        across = (step - 1) / max(1, planned - 1)
        up = (loss - low) / (high - low)
        width, height = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _TOP - _BOTTOM
        return _LEFT + across * width, _TOP + (1 - up) * height

    font = ImageFont.load_default()
    for tick in range(_TICKS):
        share = tick / (_TICKS - 1)
        loss, step = low + share * (high - low), 1 + share * (max(2, planned) - 1)
        draw.line([place(1, loss), place(max(2, planned), loss)], fill="#262b33")
        draw.text((8, place(1, loss)[1] - 6), f"{loss:.4g}", fill=_AXIS, font=font)
        at = place(step, low)
        draw.text((at[0] - 8, at[1] + 8), f"{step:.0f}", fill=_AXIS, font=font)
    if len(steps) > 1:
        draw.line([place(*point) for point in zip(steps, losses, strict=True)], fill=_EACH)
        means = _means(losses, max(1, planned // 40))
        points = [place(*point) for point in zip(steps, means, strict=True)]
        draw.line(points, fill=_MEAN, width=3, joint="curve")
    draw.text((_LEFT + 8, 6), "loss by step, and its mean", fill=_AXIS, font=font)
    return image


def _limits(losses: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, never the same."""
    if not losses:
        return 0.0, 1.0
    low, high = min(losses), max(losses)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _means(values: Sequence[float], reach: int) -> list[float]:
    """Of each value and up to `reach` on either side."""
    around = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in around]
