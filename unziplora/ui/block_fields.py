"""The checklist of blocks under Advanced: where each LoRA trains all of its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from unziplora.method.methods import table_for
from unziplora.method.prompts import BRANCHES
from unziplora.ui.block_names import plain_names
from unziplora.ui.gradio_compat import plain_html
from unziplora.ui.html import aside
from unziplora.unet.architectures import family

NAMES = ("own_blocks", "blocks_content", "blocks_style")
_TECHNICAL = re.compile(r"\((?P<group>[\w.]+)\)$")
_NOTE = (
    "In the chosen blocks a LoRA trains all of its columns, elsewhere the most important ones. "
    "The defaults of the loaded model are ticked."
)


def build_blocks() -> dict[str, Any]:
    """A checkbox, and a checklist for each LoRA, by the names in NAMES."""
    own = gr.Checkbox(False, label="Choose the blocks", elem_id="uz_own_blocks", min_width=120)
    plain_html(aside(_NOTE))
    fields = {"own_blocks": own}
    with gr.Row():
        for branch in BRANCHES:
            fields[f"blocks_{branch}"] = gr.CheckboxGroup(
                choices_of("sdxl"), value=defaults_of("sdxl", branch),
                label=f"Blocks of the {branch}", elem_id=f"uz_blocks_{branch}",
            )  # fmt: skip
    return fields


def read_blocks(
    own: bool, content: Sequence[str], style: Sequence[str]
) -> dict[str, list[str]] | None:
    """The setting `blocks` from the fields; None for the model's own table."""
    if not own:
        return None
    return {"content": _groups(content), "style": _groups(style)}


def updates_for(architecture: str) -> list[Any]:
    """Updates of both checklists for a model."""
    choices = choices_of(architecture)
    return [gr.update(choices=choices, value=defaults_of(architecture, b)) for b in BRANCHES]


def choices_of(architecture: str) -> list[str]:
    """The blocks of an architecture in plain words, each with its technical name."""
    members = family()
    groups = list((members.get(architecture) or members["sdxl"]).groups)
    return [f"{plain} ({group})" for group, plain in plain_names(groups).items()]


def defaults_of(architecture: str, branch: Any) -> list[str]:
    """Those of `choices_of` in which a LoRA trains all columns where nobody chooses."""
    table = table_for(architecture)[branch]
    return [choice for choice in choices_of(architecture) if _groups([choice])[0] in table]


def _groups(choices: Sequence[str]) -> list[str]:
    found = (_TECHNICAL.search(choice) for choice in choices or ())
    return [match["group"] for match in found if match]
