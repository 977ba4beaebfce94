"""The advanced fields of the Train tab: what each is called, and the settings that they give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

import gradio as gr

from unziplora.method.methods import METHODS
from unziplora.training.settings import Settings
from unziplora.ui.block_fields import NAMES as BLOCK_FIELDS
from unziplora.ui.block_fields import build_blocks, read_blocks
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.html import number
from unziplora.ui.preset_part import build_presets
from unziplora.ui.text_fields import Field

_TYPES = get_type_hints(Settings)

TEXTS: Mapping[str, Field] = {
    "token": Field("Trigger token", "a rare word that names your subject"),
    "steps": Field("Training steps", "how many", int),
    "lr": Field("Learning rate", "of both LoRAs", float),
    "rank": Field("Network rank (dim)", "size of the files", int),
    "alpha": Field("Network alpha", "scale is alpha / rank", float, "same as rank"),
    "lr_warmup": Field("Warm-up steps", "of the learning rate", int, "0"),
    "resolution": Field("Resolution", "pixels a side", int),
    "seed": Field("Seed", "same seed, same result", int, "0"),
    "preview_every": Field("Preview every N steps", "0 = off", int, "0"),
    "preview_prompt": Field("Preview prompt", "of all four", str, "the trained prompts"),
    "preview_negative": Field("Negative prompt", "what they should not show"),
    "preview_steps": Field("Preview steps", "fewer are faster", int, "20"),
    "preview_sampler": Field("Sampler", "and schedule type", str, "default"),
    "preview_guidance": Field("CFG scale", "guidance", float, "default"),
    "preview_width": Field("Width", "pixels", int, "resolution"),
    "preview_height": Field("Height", "pixels", int, "resolution"),
    "snapshot_every": Field("Save every N steps", "0 = off", int, "0"),
    "prompt_combined": Field("Prompt of the image", "both LoRAs"),
    "prompt_content": Field("Prompt of the content", "read by the content LoRA"),
    "prompt_style": Field("Prompt of the style", "read by the style LoRA"),
}
_WORD = Field("", "")  # what is chosen from a list
FORECAST_FIELDS = ("method", "steps", "rank", "resolution", "memory")  # memory and time need these
DEFAULT_FIELDS = ("steps", "lr", "rank", "resolution")  # their defaults are the model's
FLAGS = ("flip", "preview_snapshots", "image_on_cards")
NO_PAIR = "no pair"
PREVIEW_FIELDS = (  # in the order in which javascript/unziplora.js gives txt2img's
    "preview_prompt", "preview_negative", "preview_steps", "preview_sampler", "preview_guidance",
    "preview_width", "preview_height",
)  # fmt: skip
PROMPT_FIELDS = ("prompt_combined", "prompt_content", "prompt_style")


def build_fields(
    preview_every: int, preview_source: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs by their settings' names, with "overwrite" and the blocks'; and the part of saved
    presets (preset_part.py). preview_source: JavaScript that gives the values of PREVIEW_FIELDS."""
    with gr.Accordion("Advanced", open=False, elem_id="uz_advanced"):
        fields = _training_fields() | _saving_fields(preview_every)
        with gr.Accordion("Previews", open=False, elem_id="uz_previews"):
            fields |= _preview_fields(preview_source)
        plain_html('<p class="uz-aside">Leave a field empty for the default shown in it.</p>')
        plain_html('<div class="uz-title">Prompts that will be trained</div>')
        with gr.Row():
            fields |= {name: _text(name) for name in PROMPT_FIELDS}
        with gr.Accordion("Blocks", open=False, elem_id="uz_blocks"):
            fields |= build_blocks()
        presets = build_presets()
    return fields, presets


def _training_fields() -> dict[str, Any]:
    with gr.Row():
        fields = {
            "token": _text("token", "sks"),
            "method": _choice("method", METHODS, "Method", "Other methods, for comparison"),
            "memory": _choice("memory", get_args(_TYPES["memory"]), "Memory plan",
                              "auto = fastest that fits"),
        }  # fmt: skip
    with gr.Row():
        fields |= {name: _text(name) for name in ("steps", "lr", "lr_warmup")}
        fields["lr_schedule"] = _choice(
            "lr_schedule", get_args(_TYPES["lr_schedule"]), "Scheduler", "of the learning rate"
        )
    with gr.Row():
        fields |= {name: _text(name) for name in ("rank", "alpha", "resolution", "seed")}
    with gr.Row():
        fields["prediction_type"] = _choice(
            "prediction_type", get_args(_TYPES["prediction_type"]), "Prediction type",
            "model = as detected",
        )  # fmt: skip
        fields["start_from"] = gr.Dropdown(
            [NO_PAIR], value=NO_PAIR, label="Start from", elem_id="uz_start_from", min_width=120,
            info="Trains a finished pair further: same rank, fresh optimizer",
        )  # fmt: skip
    fields["flip"] = gr.Checkbox(False, label="Train on the mirrored image too", elem_id="uz_flip")
    return fields


def _saving_fields(preview_every: int) -> dict[str, Any]:
    with gr.Row():
        fields = {
            "preview_every": _text("preview_every", str(preview_every)),
            "snapshot_every": _text("snapshot_every"),
        }
    with gr.Row():
        for name, label in (
            ("preview_snapshots", "Keep the LoRAs of each preview"),
            ("image_on_cards", "Training image on cards without a preview"),
            ("overwrite", "Overwrite existing files"),
        ):
            fields[name] = gr.Checkbox(False, label=label, elem_id=f"uz_{name}", min_width=160)
    return fields


def _preview_fields(source: str | None) -> dict[str, Any]:
    with gr.Row():
        fields = {name: _text(name) for name in PREVIEW_FIELDS[:2]}
    with gr.Row():
        fields |= {name: _text(name) for name in PREVIEW_FIELDS[2:]}
    if source is not None:
        copy = gr.Button("As in txt2img", size="sm", elem_id="uz_preview_source")
        when(copy.click, None, None, list(fields.values()), js=source)
    return fields


def read_settings(
    subject: str, style: str, name: str, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's settings from the fields, and how it begins: overwrite, start_from. Raises
    InvalidInput where a number is none."""
    typed = dict(values)
    kept = {name: True for name in FLAGS if typed.pop(name, False)}
    pair = typed.pop("start_from", None)
    begins = {
        "overwrite": bool(typed.pop("overwrite", False)),
        "start_from": None if pair in (None, "", NO_PAIR) else str(pair),
    }
    blocks = read_blocks(*(typed.pop(field) for field in BLOCK_FIELDS))
    words = {"subject": (subject or "").strip(), "style": (style or "").strip()}
    named = {"name": name.strip()} if name and name.strip() else {}
    own_blocks = {"blocks": blocks} if blocks is not None else {}
    return {**read_fields(typed), **kept, **words, **named, **own_blocks}, begins


def values_of(settings: Settings) -> dict[str, Any]:
    """By name, what the fields of a run show: an empty one for a setting that is not chosen."""
    values: dict[str, Any] = {}
    for name, field in TEXTS.items():
        value = getattr(settings, name)
        default = "" if name in ("token", "preview_every") else getattr(Settings, name, None)
        values[name] = "" if value in (None, default) else _as_text(value, field)
    for name in ("method", "memory", "lr_schedule", "prediction_type", *FLAGS):
        values[name] = getattr(settings, name)
    return values


def _as_text(value: Any, field: Field) -> str:
    return value if field.kind is str else number(value)


def read_fields(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not empty, as settings. Raises InvalidInput where a number is none."""
    values = {name: TEXTS.get(name, _WORD).read(value) for name, value in typed.items()}
    return {name: value for name, value in values.items() if value is not None}


def placeholders(defaults: Mapping[str, Any]) -> Iterable[Any]:
    """Updates of the fields in DEFAULT_FIELDS that show the model's defaults."""
    return [gr.update(placeholder=number(defaults[name])) for name in DEFAULT_FIELDS]


def _choice(name: str, choices: Iterable[str], label: str, info: str) -> Any:
    """A dropdown of a setting, at its default."""
    return gr.Dropdown(
        list(choices), value=getattr(Settings, name), label=label, info=info, elem_id=f"uz_{name}",
        min_width=120,
    )  # fmt: skip


def _text(name: str, value: str = "") -> Any:
    return TEXTS[name].build(f"uz_{name}", value)
