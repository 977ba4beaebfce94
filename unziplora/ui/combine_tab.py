"""The Combine tab: content of one pair with the style of another, looked at before it is merged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput, NotFound
from unziplora.lora.merge_methods import find_merge_method
from unziplora.lora.overlap import columns
from unziplora.lora.pair import Pair
from unziplora.ui import combine_html, pair_html
from unziplora.ui.answers import attempt, message_from, parse_request
from unziplora.ui.gradio_compat import copyable_text, hidden, plain_html, when
from unziplora.ui.grid_html import weight_grid
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.html import message
from unziplora.ui.merge_part import build_merge_part
from unziplora.ui.requests import Requests
from unziplora.ui.sheet_part import action, sheet_image, weight_sliders

_LEAD = "The content of one pair with the style of another. Pick them by their cards."
_UNKNOWN = "The page requested something unknown. Reload it."
_TWO = "Two pairs are needed. Choose whose content and whose style."


def build(service: Service, features: HostFeatures, requests: Requests, tab: Any) -> None:
    """Inside a TabItem, at whose selection the lists are read again."""
    combine = _Combine(service, features, requests)
    combine.connect_choice(tab)
    combine.connect_drawing()
    combine.connect_prompt()
    combine.connect_merging()


def mixed(service: Service, content_of: str | None, style_of: str | None) -> Pair:
    """The content of one pair and the style of another as if they were one. Raises InvalidInput."""
    if not content_of or not style_of:
        raise InvalidInput(_TWO)
    content, style = service.pair(content_of), service.pair(style_of)
    return replace(content, style=style.style, style_trigger=style.style_trigger)


class _Combine:
    def __init__(self, service: Service, features: HostFeatures, requests: Requests) -> None:
        self._service, self._requests = service, requests
        self._to_prompt = features.to_prompt
        can_draw = service.draw is not None
        plain_html(f'<p class="uz-lead">{_LEAD}</p>')
        self.cards = plain_html(elem_id="uz_picks")
        with gr.Row():
            self.content_of = gr.Dropdown([], label="Content of", elem_id="uz_content_of")
            self.style_of = gr.Dropdown([], label="Style of", elem_id="uz_style_of")
        with gr.Row():
            self.content, self.style = weight_sliders("uz_combine")
        self.prompt = copyable_text(
            label="Prompt", info="calls both LoRAs with their trigger words", lines=2,
            elem_id="uz_combine_prompt", interactive=True,
        )  # fmt: skip
        with gr.Row():
            self.send = action(
                "Into the txt2img prompt", "uz_combine_to_prompt", self._to_prompt is not None
            )
            self.look = action("Draw four images", "uz_combine_draw", can_draw)
            self.grid_button = action("Draw weight grid", "uz_combine_grid", can_draw)
        self.answer = plain_html(elem_id="uz_combine_message")
        self.images = sheet_image("uz_combine_sheet")
        self.grid = plain_html(elem_id="uz_combine_grid_images")
        self.merging = build_merge_part()
        self.progress = plain_html(elem_id="uz_merge_live")
        self.merged = plain_html(elem_id="uz_merged")
        self.overlap = plain_html(elem_id="uz_overlap")
        with hidden():
            self.request = gr.Textbox()
            self.edit = gr.Textbox(elem_id="uz_combine_edit")
            self.poll = gr.Button(elem_id="uz_poll_merge")
        self.pair = [self.content_of, self.style_of]
        self.mixing = [*self.pair, self.content, self.style]

    def connect_choice(self, tab: Any) -> None:
        """The lists, and picking by a card or a dropdown."""
        listed = [self.cards, *self.pair, self.merged, self.progress]
        for event in self._requests.at_sight("combine", tab):
            when(event, self._look, self.pair, listed)
        self._requests.answer("pick", self._pick, [self.request, *self.pair], listed)
        for source in self.pair:
            when(source.change, self._compare, self.pair, [self.overlap, self.cards],
                 show_progress="minimal")  # fmt: skip
            # A message about other pairs is old. Not at `change`, which also comes when the lists
            # are read again, and in the browser: an answer of the server might wipe away a newer
            # one.
            when(source.input, None, None, [self.answer], js="() => ''")

    def connect_drawing(self) -> None:
        when(self.look.click, self._draw, self.mixing, [self.answer, self.images],
             show_progress="full", takes_minutes=True)  # fmt: skip
        when(self.grid_button.click, self._draw_grid, self.pair, [self.answer, self.grid],
             show_progress="full", takes_minutes=True)  # fmt: skip
        weights = [self.content, self.style, self.answer]
        self._requests.answer("weights", self._take_weights, [self.request], weights)

    def connect_prompt(self) -> None:
        for source in self.mixing:
            when(source.change, self._write, self.mixing, [self.prompt])
        if self._to_prompt is not None:
            edited = when(self.send.click, self._edit, self.mixing, [self.edit, self.answer])
            when(edited.then, None, [self.edit], None, js=self._to_prompt)

    def connect_merging(self) -> None:
        inputs = [*self.mixing, *self.merging.inputs]
        outputs = [self.answer, self.merged, self.progress]
        when(self.merging.button.click, self._merge, inputs, outputs, show_progress="minimal")
        looked = when(self.poll.click, self._news, None, outputs)
        when(looked.success, None, None, None,
             js="() => { window.unziplora.mergePolled = 0; return []; }")  # fmt: skip
        prompted = [self.answer, self.merged, self.prompt, self.edit]
        asked = self._requests.answer("merged", self._for_merged, [self.request], prompted)
        if self._to_prompt is not None:
            when(asked.then, None, [self.edit], None, js=self._to_prompt)

    def _look(self, content_of: str | None, style_of: str | None) -> tuple[Any, ...]:
        found = self._service.pairs()
        known = [pair.name for pair in found]
        chosen = [one if one in known else None for one in (content_of, style_of)]
        fields = (gr.update(choices=known, value=one) for one in chosen)
        return (combine_html.pick_cards(found, *chosen), *fields, *self._made())

    def _pick(self, request: str, content_of: str | None, style_of: str | None) -> tuple[Any, ...]:
        row, _ = attempt(lambda: parse_request(request))
        name, role = str((row or {}).get("name")), (row or {}).get("role")
        if role == "content":
            content_of = name
        elif role == "style":
            style_of = name
        return self._look(content_of, style_of)

    def _compare(self, content_of: str | None, style_of: str | None) -> tuple[str, str]:
        cards = combine_html.pick_cards(self._service.pairs(), content_of, style_of)
        if not content_of or not style_of:
            return "", cards

        def overlap() -> str:
            pair = mixed(self._service, content_of, style_of)
            return combine_html.column_map(columns(pair.content, pair.style))

        shown, problem = attempt(overlap)
        return shown or problem, cards

    def _draw(
        self, content_of: str | None, style_of: str | None, content: float, style: float
    ) -> tuple[str, Any]:
        def draw() -> Any:
            mixed(self._service, content_of, style_of)
            return self._service.four_images(content_of or "", style_of or "", (content, style))

        drawn, problem = attempt(draw)
        return problem, gr.update() if drawn is None else gr.update(value=drawn, visible=True)

    def _draw_grid(self, content_of: str | None, style_of: str | None) -> tuple[str, Any]:
        def draw() -> str:
            mixed(self._service, content_of, style_of)
            grid = self._service.weight_grid(content_of or "", style_of or "")
            return weight_grid(grid, {}, to="weights")

        drawn, problem = attempt(draw)
        return problem, drawn if drawn is not None else gr.update()

    def _take_weights(self, request: str) -> tuple[Any, ...]:
        weights, problem = attempt(lambda: pair_html.weights_in(parse_request(request)))
        if weights is None:
            return gr.update(), gr.update(), problem
        text = f"Weights: content {weights[0]:g}, style {weights[1]:g}."
        return *weights, message(text)

    def _write(
        self, content_of: str | None, style_of: str | None, content: float, style: float
    ) -> str:
        try:
            pair = mixed(self._service, content_of, style_of)
        except InvalidInput:
            return ""
        return pair_html.prompt(pair, "both", content, style)

    def _edit(
        self, content_of: str | None, style_of: str | None, content: float, style: float
    ) -> tuple[str, str]:
        pair, problem = attempt(lambda: mixed(self._service, content_of, style_of))
        if pair is None:
            return "", problem
        return pair_html.prompt_edit(pair, "both", content, style, toggle=False), ""

    def _merge(
        self, content_of: str | None, style_of: str | None, content: float, style: float,
        *how: str,
    ) -> tuple[str, ...]:  # fmt: skip
        def merge() -> str:
            pair = mixed(self._service, content_of, style_of)
            chosen = self.merging.read(*how)
            name = chosen.name or f"{content_of}-content-{style_of}-style"
            parts = [(pair.content, content), (pair.style, style)]
            if find_merge_method(chosen.how).learns:
                self._service.start_merge(name, parts, chosen.learning)
                return ""
            made = self._service.merge(name, parts, chosen.how, mu=chosen.mu)
            return combine_html.merged_text(made)

        return message_from(merge), *self._made()

    def _made(self) -> tuple[str, str]:
        """The merged files, and the one that is being learned."""
        cards = combine_html.merged_cards(self._service.merged())
        return cards, combine_html.merge_progress(self._service.merges.current)

    def _news(self) -> tuple[Any, ...]:
        """Of a merge that learns, asked for by page.js."""
        merging = self._service.merges.current
        if merging is None or merging.state == "running":
            return gr.update(), gr.update(), combine_html.merge_progress(merging)
        return combine_html.merge_result(merging), *self._made()

    def _for_merged(self, request: str) -> tuple[Any, ...]:
        """Use or Delete of a merged file, and the end of one that is being learned."""
        prompt: Any = gr.update()
        edit = ""

        def obey() -> str:
            nonlocal prompt, edit
            row = parse_request(request)
            name = str(row.get("name"))
            if row.get("do") == "stop":
                self._service.merges.stop()
                return "The merge ends after this step, with what was learned by then."
            if row.get("do") == "delete":
                return f"Deleted: {', '.join(self._service.delete_merged(name))}."
            merged = next((m for m in self._service.merged() if m.path.stem == name), None)
            if row.get("do") != "use" or merged is None:
                raise NotFound(_UNKNOWN)
            words = combine_html.words_of(merged)
            prompt = f"a {words} <lora:{name}:1>" if words else f"<lora:{name}:1>"
            lora = {"name": name, "trigger": words, "weight": 1.0}
            edit = json.dumps({"content": lora, "toggle": True})
            where = "in the Prompt field" if self._to_prompt is None else "for txt2img"
            return f"Prompt {where}: {name}."

        answer = message_from(obey)
        return answer, combine_html.merged_cards(self._service.merged()), prompt, edit
