"""What Results and Combine share: weights, and a sheet of a pair or of two."""

from __future__ import annotations

from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.ui.answers import attempt
from unziplora.ui.html import message

LEAST_WEIGHT, MOST_WEIGHT = -1, 2
_CAPTION = "Content in new scenes, the style on other things, and both."


def weight_sliders(prefix: str) -> tuple[Any, Any]:
    """Of content and style."""
    content, style = (
        gr.Slider(
            LEAST_WEIGHT, MOST_WEIGHT, value=1, step=0.05, label=f"{role.capitalize()} weight",
            elem_id=f"{prefix}_{role}_weight",
        )
        for role in ("content", "style")
    )  # fmt: skip
    return content, style


def draw_sheet(
    service: Service, content_of: str | None, style_of: str | None, content: float, style: float
) -> tuple[str, Any]:
    """A message, and an update of the sheet's image."""
    sheet, problem = attempt(
        lambda: service.sheet(content_of or "", style_of or "", (content, style))
    )
    if sheet is None:
        return problem, gr.update()
    return message(_CAPTION), gr.update(value=sheet, visible=True)


def sheet_image(elem_id: str) -> Any:
    """Where a sheet is shown, without gradio's label, which would cover its heading."""
    return gr.Image(
        label="Sheet", show_label=False, visible=False, interactive=False, elem_id=elem_id
    )


def action(label: str, elem_id: str, visible: bool = True) -> Any:
    """A small button, one of a row."""
    return gr.Button(label, size="sm", elem_id=elem_id, visible=visible, min_width=120)
