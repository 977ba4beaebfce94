"""What a run is described with on the Train tab: the image, the words, a preset, the fields."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from unziplora import mini
from unziplora.app.service import Service
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.images.load import open_image, with_mask
from unziplora.method.prompts import Prompts
from unziplora.training.settings import Settings
from unziplora.ui import advanced_fields, presets
from unziplora.ui.answers import attempt
from unziplora.ui.gradio_compat import image_input, plain_html, when
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.html import message


@dataclass(frozen=True)
class Form:
    """The inputs. mask: what of the image is shown. fields: the advanced ones, by their settings'
    names. fetch: by a label, the button that copies an image from a WebUI's page. presets: the part
    of saved ones. example: the button that fills in an image and words, where the miniature is
    loaded."""

    image: Any
    mask: Any
    fetch: Mapping[str, Any]
    subject: Any
    style: Any
    name: Any
    suggest: Any
    suggest_subject: Any
    preset: Any
    preset_note: Any
    fields: Mapping[str, Any]
    presets: Mapping[str, Any]
    example: Any

    @property
    def inputs(self) -> list[Any]:
        return [self.image, self.mask, self.subject, self.style, self.name, *self.fields.values()]

    def read(self, *values: Any) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
        """The image, a run's settings and how it begins (overwrite, start_from), from the values
        of `inputs`. Raises InvalidInput."""
        image, mask, subject, style, name, *typed = values
        if image is None:
            raise InvalidInput("There is no image. Drop one, paste it, or choose a file.")
        if mask is not None:
            image = with_mask(image, mask)
        named = dict(zip(self.fields, typed, strict=True))
        return image, *advanced_fields.read_settings(subject, style, name, named)

    def values_of(self, image: bytes, settings: Settings) -> list[Any]:
        """Updates of `inputs` that describe a run."""
        source = open_image(image)
        shown = source.image
        if source.mask is not None:  # a mask is in the image's transparency by now
            shown = shown.copy()
            shown.putalpha(source.mask)
        named = (shown, None, settings.subject, settings.style, settings.name or "")
        own = advanced_fields.values_of(settings)
        return [*named, *(own.get(name, gr.update()) for name in self.fields)]


def build_form(features: HostFeatures) -> Form:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            image = image_input(label="Image", elem_id="uz_image", height=300)
            with gr.Row(visible=bool(features.images)):
                fetch = {
                    label: gr.Button(label, size="sm", elem_id=f"uz_from_{_source(label)}")
                    for label in features.images
                }
            with gr.Accordion("Mask", open=False, elem_id="uz_mask_part"):
                mask = image_input(label="White shows, black hides", elem_id="uz_mask", height=160)
            example = gr.Button("Try the example", size="sm", visible=False, elem_id="uz_example")
        with gr.Column(scale=2, min_width=300):
            words = _build_words(features)
            fields, saved = advanced_fields.build_fields(
                features.preview_every, features.preview_source
            )
    return Form(
        image=image, mask=mask, fetch=fetch, fields=fields, presets=saved, example=example, **words
    )


def _source(label: str) -> str:
    """txt2img, of "From txt2img": javascript/unziplora.js presses the button by it."""
    return label.removeprefix("From ")


def _build_words(features: HostFeatures) -> dict[str, Any]:
    with gr.Row():
        with gr.Column(min_width=140, elem_id="uz_subject_column"):
            subject = gr.Textbox(
                label="Subject", info="One word for what the image shows", placeholder="cat",
                max_lines=1, elem_id="uz_subject",
            )  # fmt: skip
            suggest_subject = _suggest_button("uz_suggest_subject", features.suggest_subject)
        with gr.Column(min_width=140, elem_id="uz_style_column"):
            style = gr.Textbox(
                label="Style", info="How it is made, 2 or 3 words",
                placeholder="watercolor painting", max_lines=1, elem_id="uz_style",
            )  # fmt: skip
            suggest = _suggest_button("uz_suggest", features.suggest)
        name = gr.Textbox(
            label="File name (optional)", info="of both LoRAs", max_lines=1, min_width=140,
            placeholder="from subject and style", elem_id="uz_name",
        )  # fmt: skip
    preset = gr.Radio(
        list(presets.BUILT_IN), value=presets.DEFAULT, label="Preset", elem_id="uz_preset"
    )
    note = plain_html(elem_id="uz_preset_note")
    return {
        "subject": subject, "style": style, "name": name, "suggest": suggest,
        "suggest_subject": suggest_subject, "preset": preset, "preset_note": note,
    }  # fmt: skip


def _suggest_button(elem_id: str, suggest: Any) -> Any:
    """None where the program suggests nothing."""
    return None if suggest is None else gr.Button("Suggest", size="sm", elem_id=elem_id)


def connect(form: Form, service: Service, features: HostFeatures, answer: Any) -> None:
    """What the form's own buttons do. answer: where their messages go."""

    def fill(preset: str, method: str) -> list[Any]:
        defaults = service.model_defaults(method)
        values = presets.built_in(preset, defaults, service.smallest_plan)
        return [gr.update(value=value) for value in values.values()]

    filled = [form.fields[name] for name in presets.FIELDS]
    when(form.preset.change, fill, [form.preset, form.fields["method"]], filled)
    for label, js in features.images.items():
        copy = _copying(_source(label))
        # the button's own input is a field of the page, which the JavaScript's answer replaces
        when(form.fetch[label].click, copy, [form.name], [form.image, answer], js=js)
    for button, field, ask in (
        (form.suggest, form.style, features.suggest),
        (form.suggest_subject, form.subject, features.suggest_subject),
    ):
        if button is not None and ask is not None:
            when(button.click, _suggesting(ask), [form.image], [field, answer],
                 show_progress="minimal")  # fmt: skip
    when(form.example.click, _example, None, [form.image, form.subject, form.style])
    words = [form.subject, form.style, form.fields["token"]]
    prompts = [form.fields[name] for name in advanced_fields.PROMPT_FIELDS]
    for source in words:
        when(source.change, _prompt_placeholders, words, prompts)


def _example() -> tuple[Any, str, str]:
    """The image and the words of `unziplora demo`."""
    return open_image(mini.IMAGE).image, mini.SUBJECT, mini.STYLE


def _copying(source: str) -> Any:
    """A handler that takes a data URL over into the image's field."""

    def copy(data_url: str | None) -> tuple[Any, str]:
        image, problem = attempt(lambda: _decode(data_url))
        if image is None:
            return gr.update(), problem
        return image, message(f"Image copied from {source}.")

    return copy


def _decode(data_url: str | None) -> Image.Image:
    try:
        data = base64.b64decode((data_url or "").rpartition("base64,")[2], validate=True)
    except binascii.Error:
        data = b""
    if not data:
        raise InvalidInput("There is no image to copy. Draw one first, or drop a file here.")
    return open_image(data).image


def _suggesting(ask: Callable[[Image.Image], str]) -> Any:
    """A handler that puts the program's words for the image into a field."""

    def words_for(image: bytes | None) -> str:
        if image is None:
            raise InvalidInput("There is no image to look at. Drop one first.")
        return ask(open_image(image).image)

    def suggest(image: bytes | None) -> tuple[Any, str]:
        words, problem = attempt(lambda: words_for(image))
        text = "This is what the WebUI sees in the image. Change it as you like."
        return (gr.update(), problem) if words is None else (words, message(text))

    return suggest


def _prompt_placeholders(subject: str, style: str, token: str) -> list[Any]:
    """The three prompts that these words give, shown in the fields that replace them."""
    try:
        prompts = Settings(subject.strip(), style.strip(), token.strip() or "sks").prompts
    except (UnZipLoRAError, AttributeError):  # not typed yet
        prompts = Prompts("", "", "")
    texts = (prompts.combined, prompts.content, prompts.style)
    return [gr.update(placeholder=text) for text in texts]
