"""A slider over the steps at which a run's previews were drawn, and a button that makes one of them
a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.ui.answers import message_from
from unziplora.ui.gradio_compat import hidden, plain_html, when
from unziplora.ui.html import image

_SHOWN = ("base", "content", "style", "both")
_LABELS = {"base": "base model"}


class Timeline:
    """prefix: of the ids of its parts. answer: where messages go."""

    def __init__(self, service: Service, prefix: str) -> None:
        self._service = service
        with gr.Column(visible=False, elem_id=f"{prefix}_timeline") as self.part:
            with hidden():
                self.name = gr.Textbox(elem_id=f"{prefix}_timeline_name")
            self.slider = gr.Slider(
                1, 2, value=1, step=1, label="Previews, from the first to the last",
                elem_id=f"{prefix}_timeline_slider",
            )  # fmt: skip
            self.images = plain_html(elem_id=f"{prefix}_timeline_images")
            self.save = gr.Button(
                "Save this step as a pair", size="sm", visible=False, elem_id=f"{prefix}_save_step"
            )

    @property
    def outputs(self) -> list[Any]:
        return [self.part, self.name, self.slider, self.images, self.save]

    def connect(self, answer: Any) -> None:
        """answer: where messages go."""
        shown = [self.name, self.slider]
        for event in (self.slider.input, self.slider.release):
            when(event, self._show, shown, [self.images, self.save])
        when(self.save.click, self._save, shown, [answer], show_progress="minimal")

    def open(self, name: str | None) -> list[Any]:
        """Updates of `outputs`: the previews of a run, the last ones first; hidden where there are
        none to choose from."""
        if not name or not self.has_several(name):
            return [gr.update(visible=False), "", *(gr.update() for _ in range(3))]
        count = len(self._steps(name))
        slider = gr.update(minimum=1, maximum=count, value=count)
        return [gr.update(visible=True), name, slider, *self._show(name, count)]

    def has_several(self, name: str) -> bool:
        """Whether there is something to choose from."""
        return len(self._steps(name)) > 1

    def _steps(self, name: str) -> dict[int, dict[str, Path]]:
        try:
            return self._service.preview_steps(name) if name else {}
        except InvalidInput:
            return {}

    def _chosen(self, name: str, place: float) -> tuple[int, dict[str, Path]]:
        """Raises InvalidInput where the previews are gone."""
        steps = list(self._steps(name).items())
        if not steps:
            raise InvalidInput("The previews of this run are gone. Reload the page.")
        return steps[min(max(int(place or 1), 1), len(steps)) - 1]

    def _show(self, name: str, place: float) -> tuple[str, Any]:
        """Of the place in the list of previews, from 1."""
        try:
            step, found = self._chosen(name, place)
        except InvalidInput:
            return "", gr.update(visible=False)
        figures = "".join(
            f"<figure>{image(found.get(what), f'{what} after step {step}')}"
            f"<figcaption>{_LABELS.get(what, what)}</figcaption></figure>"
            for what in _SHOWN
        )
        shown = (
            f'<div class="uz-title">Previews after step {step}</div>'
            f'<div class="uz-previews uz-four">{figures}</div>'
        )
        return shown, gr.update(visible=self._is_kept(name, step))

    def _is_kept(self, name: str, step: int) -> bool:
        try:
            return bool(self._service.snapshot(name, step))
        except UnZipLoRAError:
            return False

    def _save(self, name: str, place: float) -> str:
        def save() -> str:
            step, _ = self._chosen(name, place)
            return f"Step {step} is the pair {self._service.save_step(name, step).name} now."

        return message_from(save)
