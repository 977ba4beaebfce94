"""The advanced fields of the Train tab, and the presets that fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

import gradio as gr

from unziplora.errors import InvalidInput
from unziplora.method.methods import METHODS
from unziplora.training.settings import Settings
from unziplora.ui.gradio_compat import plain_html

# What a preset writes into the fields; an empty one means: as in the paper, or the model's own.
SMALLEST = "smallest"  # of the memory plans that the model can run
PRESETS: Mapping[str, Mapping[str, str]] = {
    "Paper": {},
    "Fast": {"steps": "300", "lr": "1e-4"},
    "Low memory": {"memory": SMALLEST, "rank": "16"},
}
PRESETS_SAID = "Fast: half the steps at twice the rate. Low memory: the smallest plan, rank 16."
_PRESET_FIELDS: Mapping[str, str] = {"steps": "", "lr": "", "rank": "", "memory": "auto"}
_NUMBERS = ("steps", "rank", "lr", "resolution", "seed", "preview_every", "snapshot_every")
NEEDING = ("method", "steps", "rank", "resolution", "memory")  # what memory and time depend on
_MEMORY = get_args(get_type_hints(Settings)["memory"])


def advanced(preview_every: int) -> dict[str, Any]:
    """The inputs by their settings' names, and "overwrite"."""
    fields: dict[str, Any] = {}
    with gr.Accordion("Advanced", open=False, elem_id="uz_advanced"):
        with gr.Row():
            fields["method"] = _choice("method", list(METHODS), "unziplora", "others: to compare")
            fields["token"] = _text("token", "a rare word: its name", "", value="sks")
            fields["memory"] = _choice("memory", list(_MEMORY), "auto", "auto: what fits")
        with gr.Row():
            fields["steps"] = _text("steps", "how long it trains", "600")
            fields["rank"] = _text("rank", "size of the files", "64")
            fields["lr"] = _text("lr", "how fast it learns", "5e-5", "Learning rate")
            fields["resolution"] = _text("resolution", "pixels a side", "the model's")
        with gr.Row():
            fields["seed"] = _text("seed", "for repeating it", "0")
            fields["preview_every"] = _text(
                "preview_every", "steps; 0: never", "never", "Previews every", str(preview_every)
            )
            fields["snapshot_every"] = _text("snapshot_every", "steps", "never", "Snapshots every")
            fields["overwrite"] = gr.Checkbox(
                False, label="Overwrite files of this name", elem_id="uz_overwrite", min_width=120
            )
        plain_html('<p class="uz-aside">Empty: as in the paper, or as the model asks.</p>')
    return fields


def preset(name: str, smallest_plan: Callable[[], str]) -> tuple[Any, ...]:
    """Updates of the fields that presets fill, in the order of `preset_fields`."""
    values = {**_PRESET_FIELDS, **PRESETS.get(name, {})}
    if values["memory"] == SMALLEST:
        values["memory"] = smallest_plan()
    return tuple(gr.update(value=values[field]) for field in _PRESET_FIELDS)


def preset_fields(fields: Mapping[str, Any]) -> list[Any]:
    """The inputs that a preset fills."""
    return [fields[field] for field in _PRESET_FIELDS]


def settings(
    subject: str, style: str, name: str, values: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """What was typed, as a run's settings, and whether it may replace what is there. Raises
    InvalidInput where a number is none."""
    typed = dict(values)
    overwrite = bool(typed.pop("overwrite"))
    words = {"subject": (subject or "").strip(), "style": (style or "").strip()}
    named = {"name": name.strip()} if name and name.strip() else {}
    return {**given(typed), **words, **named}, overwrite


def given(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not empty, as settings. Raises InvalidInput where a number is none."""
    said = {field: _said(field, value) for field, value in typed.items()}
    return {field: value for field, value in said.items() if value is not None}


def _said(field: str, value: Any) -> Any:
    """A number where one was typed; None for an empty field: the setting's own default."""
    text = str(value or "").strip()
    if field not in _NUMBERS or not text:
        return text or None
    try:
        return float(text) if field == "lr" else int(text)
    except ValueError as error:
        kind = "a number, as 5e-5" if field == "lr" else "a whole number"
        raise InvalidInput(
            f"{field.replace('_', ' ').capitalize()} cannot be {text!r}. Type {kind}, or leave it "
            "empty."
        ) from error


def _choice(field: str, choices: list[str], value: str, info: str) -> Any:
    return gr.Dropdown(
        choices, value=value, label=field.capitalize(), info=info, elem_id=f"uz_{field}",
        min_width=120,
    )  # fmt: skip


def _text(
    field: str, info: str, placeholder: str, label: str | None = None, value: str = ""
) -> Any:
    """A field of text, for numbers too: gr.Number makes 0 of an empty one (gradio 6.31)."""
    return gr.Textbox(
        value, label=label or field.capitalize(), info=info, placeholder=placeholder,
        max_lines=1, elem_id=f"uz_{field}", min_width=120,
    )  # fmt: skip
