"""The user's own presets on the Train tab: load, save, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from unziplora.app.preset_files import PresetFiles
from unziplora.ui.answers import attempt
from unziplora.ui.block_fields import NAMES as BLOCK_FIELDS
from unziplora.ui.gradio_compat import when
from unziplora.ui.html import message

# these fields belong to one image, one model or one run; presets keep all others
NOT_SAVED = {
    "prompt_combined", "prompt_content", "prompt_style", *BLOCK_FIELDS, "prediction_type",
    "start_from", "overwrite", "preview_snapshots",
}  # fmt: skip


def build_presets() -> dict[str, Any]:
    """The chosen name, and a button for each action."""
    with gr.Row(elem_id="uz_presets"):
        return {
            "name": gr.Dropdown(
                [], label="Saved presets", info="Choose one, or type a name to save the fields",
                allow_custom_value=True, elem_id="uz_preset_name", min_width=200,
            ),
            **{
                action: gr.Button(label, size="sm", min_width=70, elem_id=f"uz_preset_{action}")
                for action, label in (("load", "Load"), ("save", "Save"), ("delete", "Delete"))
            },
        }  # fmt: skip


def connect_presets(
    part: Mapping[str, Any], fields: Mapping[str, Any], store: PresetFiles, answer: Any
) -> Callable[[], Any]:
    """What the buttons do; gives a function that returns an update of the list. answer: where
    messages go."""
    names = [name for name in fields if name not in NOT_SAVED]
    saved = [fields[name] for name in names]

    def load(name: str | None) -> list[Any]:
        values, problem = attempt(lambda: store.read(name or ""))
        if values is None:
            return [problem, *(gr.update() for _ in names)]
        updates = [_update(fields[key], values.get(key)) for key in names]
        return [message(f"The fields are those of the preset {name}."), *updates]

    def save(name: str | None, *typed: Any) -> tuple[str, Any]:
        texts = dict(zip(names, (str(value or "") for value in typed), strict=True))
        _, problem = attempt(lambda: store.write(name or "", texts))
        return problem or message(f"The fields are saved as the preset {name}."), listing(name)

    def delete(name: str | None) -> tuple[str, Any]:
        _, problem = attempt(lambda: store.delete(name or ""))
        text = problem or message(f"The preset {name} is deleted.")
        return text, listing(name if problem else None)

    def listing(name: str | None = None) -> Any:
        return gr.update(choices=store.names(), value=name)

    when(part["load"].click, load, [part["name"]], [answer, *saved])
    when(part["save"].click, save, [part["name"], *saved], [answer, part["name"]])
    when(part["delete"].click, delete, [part["name"]], [answer, part["name"]])
    return lambda: gr.update(choices=store.names())


def _update(field: Any, value: str | None) -> Any:
    """Of a field; a dropdown keeps its value where it does not know the saved one."""
    if value is None:
        return gr.update()
    if isinstance(field, gr.Checkbox):
        return gr.update(value=value == "True")
    choices = getattr(field, "choices", None)
    if choices and value not in [choice[-1] if isinstance(choice, (list, tuple)) else choice
                                 for choice in choices]:  # fmt: skip
        return gr.update()
    return gr.update(value=value)
