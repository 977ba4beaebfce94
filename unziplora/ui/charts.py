"""Small charts as SVG and HTML, in the page's own colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 320, 72  # of the drawing; it is scaled to the page


def chart(
    title: str,
    lines: Mapping[str, Sequence[float]],
    steps: Sequence[int],
    last: int,
    note: str,
    *,
    unit: str = "",
    top: float | None = None,
) -> str:
    """Lines over a run's steps, from 0 to `last`, so that they grow to the right and nothing that
    is drawn moves sideways. steps: of the points of each line. top: of the axis; else what there is
    to draw."""
    values = [value for line in lines.values() for value in line]
    high = top or (1.05 * max(values) if values else 1.0) or 1.0
    drawn = "".join(
        f'<polyline class="uz-line uz-{escape(name)}" points="{_points(line, steps, last, high)}"/>'
        for name, line in lines.items()
    )
    now = " · ".join(f"{name} {line[-1]:.3g}{unit}" for name, line in lines.items() if line)
    legend = "".join(
        f'<span class="uz-key uz-{escape(name)}">{escape(name)} {line[-1]:.3g}{unit}</span>'
        for name, line in lines.items()
        if line
    )
    return (
        f'<figure><figcaption><b>{escape(title)}</b>{legend}<span class="uz-aside">{note}</span>'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}: {escape(now)}">{drawn}</svg></figure>'
    )


def _points(line: Sequence[float], steps: Sequence[int], last: int, high: float) -> str:
    stride = max(1, len(line) // _WIDTH)
    return " ".join(
        f"{_WIDTH * step / last:.1f},{_HEIGHT * (1 - min(1.0, value / high)):.1f}"
        for step, value in list(zip(steps, line, strict=True))[::stride]
    )


def bar(parts: Iterable[tuple[str, float]], spoken: str) -> str:
    """A bar of parts, each with its class and its share of the whole, 0 to 1."""
    inner = "".join(
        f'<i class="uz-part-{kind}" style="width:{100 * share:.2f}%"></i>' for kind, share in parts
    )
    return f'<div class="uz-parts" role="img" aria-label="{escape(spoken)}">{inner}</div>'
