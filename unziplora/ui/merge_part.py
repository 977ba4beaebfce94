"""How a content and a style become one file, on the Combine tab: the way, its numbers, the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from unziplora.lora.merge_methods import DEFAULT_MU, MERGE_METHODS, summaries
from unziplora.ui.gradio_compat import plain_html
from unziplora.ui.html import number
from unziplora.ui.sheet_part import action
from unziplora.ui.text_fields import Field
from unziplora.ziplora.learn import ZipSettings

_USUAL = ZipSettings()
NUMBERS: Mapping[str, Field] = {
    "mu": Field("Strength (mu)", "of np: how far content gives way", float, number(DEFAULT_MU)),
    "steps": Field("Steps", "of zip", int, number(_USUAL.steps)),
    "overlap": Field("Overlap (lambda)", "of zip: what both keep costs", float,
                     number(_USUAL.overlap)),
    "seed": Field("Seed", "of zip", int, number(_USUAL.seed)),
}  # fmt: skip


@dataclass(frozen=True)
class MergeChoice:
    """name: of the file, or "" for one of both pairs' names. how: of MERGE_METHODS. mu: of the one
    that projects; learning: of the one that learns."""

    name: str
    how: str
    mu: float
    learning: ZipSettings


@dataclass(frozen=True)
class MergePart:
    """The inputs, and the button."""

    name: Any
    how: Any
    numbers: Mapping[str, Any]
    button: Any

    @property
    def inputs(self) -> list[Any]:
        return [self.name, self.how, *self.numbers.values()]

    @staticmethod
    def read(name: str, how: str, *typed: str) -> MergeChoice:
        """From the values of `inputs`. Raises InvalidInput where a number is none, or is out of
        range."""
        found = {
            key: field.read(text) for (key, field), text in zip(NUMBERS.items(), typed, strict=True)
        }
        chosen = {key: value for key, value in found.items() if value is not None}
        mu = chosen.pop("mu", DEFAULT_MU)
        return MergeChoice((name or "").strip(), how, mu, ZipSettings(**chosen))


def build_merge_part() -> MergePart:
    with gr.Row():
        name = gr.Textbox(
            label="File name (optional)", info="of the merged file", max_lines=1,
            placeholder="from the names of both", elem_id="uz_merged_name",
        )  # fmt: skip
        how = gr.Dropdown(
            list(MERGE_METHODS), value="add", label="How", elem_id="uz_merge_how",
            info=summaries(),
        )  # fmt: skip
        button = action("Merge into one file", "uz_merge")
    with gr.Accordion("Settings of np and zip", open=False, elem_id="uz_merge_numbers"):
        plain_html('<p class="uz-aside">Leave a field empty for the default shown in it.</p>')
        with gr.Row():
            numbers = {key: field.build(f"uz_merge_{key}") for key, field in NUMBERS.items()}
    return MergePart(name, how, numbers, button)
