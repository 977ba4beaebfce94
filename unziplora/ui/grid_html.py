"""A grid of images over the weights of content and style: a click chooses a pair of weights."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from unziplora.app.sheet import WeightGrid
from unziplora.ui.html import button

_SIDE = 192  # pixels, of an image


def weight_grid(grid: WeightGrid, request: Mapping[str, Any], to: str) -> str:
    """As a table; each image is a button that sends `request` with its weights as `content` and
    `style` to `to` (docs/ui-protocol.md)."""
    head = "".join(f'<th scope="col">style {weight:g}</th>' for weight in grid.weights)
    rows = "".join(
        f'<tr><th scope="row">content {of_content:g}</th>'
        + "".join(
            f"<td>{_cell(grid, (of_content, of_style), request, to)}</td>"
            for of_style in grid.weights
        )
        + "</tr>"
        for of_content in grid.weights
    )
    return (
        '<div class="uz-title">Weights <span>a click puts them into the prompt</span></div>'
        f'<div class="uz-wide"><table class="uz-grid"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(
    grid: WeightGrid, weights: tuple[float, float], request: Mapping[str, Any], to: str
) -> str:
    content, style = weights
    shown = f'<img src="{_data_url(grid.images[weights])}" alt="">'
    asked = {**request, "content": content, "style": style}
    spoken = f"content {content:g}, style {style:g}"
    return button(shown, to, asked, spoken, kind="uz-cell")


def _data_url(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return escape("data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode())
