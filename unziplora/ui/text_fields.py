"""Fields of text, for numbers too: gr.Number makes 0 of an empty one (gradio 6.31)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from unziplora.errors import InvalidInput

_NUMBER_KINDS = {int: "a whole number", float: "a number, for example 5e-5"}


@dataclass(frozen=True)
class Field:
    """kind: of its value. placeholder: the default that an empty one stands for, where no model
    decides it."""

    label: str
    info: str
    kind: type = str
    placeholder: str = ""

    def build(self, elem_id: str, value: str = "") -> Any:
        return gr.Textbox(
            value, label=self.label, info=self.info, placeholder=self.placeholder, max_lines=1,
            elem_id=elem_id, min_width=120,
        )  # fmt: skip

    def read(self, typed: Any) -> Any:
        """What was typed, as its kind; None where it is empty. Raises InvalidInput where a number
        is none."""
        text = str(typed or "").strip()
        if self.kind is str or not text:
            return text or None
        try:
            return self.kind(text)
        except ValueError as error:
            raise InvalidInput(
                f"{self.label} cannot be {text!r}. Type {_NUMBER_KINDS[self.kind]}, or leave it "
                "empty."
            ) from error
