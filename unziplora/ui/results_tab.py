"""The Results tab: what was trained, and what can be done with it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from unziplora.app.own_machine import can_open, is_here
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui import compare_runs, pair_html
from unziplora.ui.advanced_fields import NO_PAIR
from unziplora.ui.answers import attempt, parse_request
from unziplora.ui.card_menu import CardMenu, delete_run
from unziplora.ui.gradio_compat import copyable_text, hidden, plain_html, when
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.html import message
from unziplora.ui.requests import Requests
from unziplora.ui.sheet_part import action, sheet_image, weight_sliders

_UNKNOWN = "The page requested something unknown. Reload it."


def build(
    service: Service,
    features: HostFeatures,
    requests: Requests,
    tab: Any,
    start_from: Any,
) -> None:
    """Inside a TabItem, at whose selection the list is read again. start_from: the Train tab's
    field."""
    results = _Results(service, features, requests)
    results.connect_list(tab)
    results.connect_prompt()
    results.connect_cards(start_from)
    compare_runs.build(service, requests, tab)


class _Results:
    def __init__(self, service: Service, features: HostFeatures, requests: Requests) -> None:
        self._requests = requests
        self._service, self._to_prompt = service, features.to_prompt
        with gr.Column(visible=False, elem_id="uz_chosen") as self.chosen:
            with gr.Row():
                self.name = gr.Dropdown([], label="Pair", elem_id="uz_pair")
                self.use = gr.Radio(list(pair_html.USES), value="both", label="Use",
                                    elem_id="uz_use")  # fmt: skip
            with gr.Row():
                self.content, self.style = weight_sliders("uz")
            self.prompt = copyable_text(
                label="Prompt", info="calls the LoRAs with their trigger words", lines=2,
                elem_id="uz_prompt", interactive=True,
            )  # fmt: skip
            self.send = action("Into the txt2img prompt", "uz_to_prompt",
                               self._to_prompt is not None)  # fmt: skip
        self.menu = CardMenu(service)
        self.answer = self.menu.answer
        self.sheet = sheet_image("uz_sheet")
        with gr.Row(elem_id="uz_find"):
            self.search = gr.Textbox(label="Search", placeholder="name or words", max_lines=1,
                                     min_width=140, elem_id="uz_search")  # fmt: skip
            self.sort = gr.Dropdown(list(pair_html.SORTS), value=pair_html.SORTS[0], label="Sort",
                                    min_width=140, elem_id="uz_sort")  # fmt: skip
        self.grid = plain_html(elem_id="uz_grid")
        self.cards = plain_html(elem_id="uz_cards")
        self.unfinished = plain_html(elem_id="uz_unfinished")
        self.refresh = gr.Button("Refresh", size="sm", elem_id="uz_refresh")
        with hidden():
            self.request = gr.Textbox()
            self.edit = gr.Textbox(elem_id="uz_edit")
        self.finding = [self.name, self.search, self.sort]
        self.listed = [self.cards, self.chosen, self.name, self.unfinished]

    def connect_list(self, tab: Any) -> None:
        """Reading the list again, and deleting."""
        at_sight = self._requests.at_sight("results", tab)
        for event in (*at_sight, self.refresh.click, self.search.change, self.sort.change):
            when(event, self._look, self.finding, self.listed)
        menu = self.menu
        changed = [self.answer, *menu.asking, *self.listed]
        inputs = [self.request, *self.finding]
        self._requests.answer("results", self._for_run, inputs, changed)
        answered = [menu.asked, menu.text, menu.licence, *self.finding]
        when(menu.yes.click, self._do, answered, changed, show_progress="minimal")

    def connect_prompt(self) -> None:
        """The prompt follows the pair, its use and the weights; cards and a button send it."""
        prompting = [self.name, self.use, self.content, self.style]
        for source in prompting:
            when(source.change, self._write, prompting, [self.prompt])
        chosen = [
            self.name, self.use, self.chosen, self.edit, self.answer, self.content, self.style,
        ]  # fmt: skip
        inputs = [self.request, self.content, self.style]
        picked = self._requests.answer("use", self._choose, inputs, chosen)
        if self._to_prompt is not None:
            when(picked.then, None, [self.edit], None, js=self._to_prompt)
            edited = when(self.send.click, self._edit, prompting, [self.edit])
            when(edited.then, None, [self.edit], None, js=self._to_prompt)

    def connect_cards(self, start_from: Any) -> None:
        """The menu of a card. start_from: the Train tab's field."""
        inputs = [self.request, self.content, self.style]
        outputs = [self.answer, *self.menu.asking, self.sheet, *self.menu.timeline.outputs,
                   self.grid]  # fmt: skip

        def choose(
            request: str, content: float, style: float, visitor: gr.Request
        ) -> tuple[Any, ...]:
            return self.menu.choose(request, content, style, is_here(visitor))

        answer = self._requests.answer
        answer("card", choose, inputs, outputs, show_progress="minimal")
        answer("draw", choose, inputs, outputs, show_progress="minimal", takes_minutes=True)
        answer("start", self._start_from, [self.request], [start_from])

    def _start_from(self, request: str) -> Any:
        """A pair's button that makes the next run begin with it."""
        row, _ = attempt(lambda: parse_request(request))
        known = [pair.name for pair in self._service.pairs()]
        name = (row or {}).get("name")
        return gr.update(choices=[NO_PAIR, *known], value=name if name in known else NO_PAIR)

    def _look(self, name: str | None, search: str, sort: str) -> tuple[Any, ...]:
        found = self._service.pairs()
        known = [pair.name for pair in found]
        value = name if name in known else next(iter(known), None)
        shown = pair_html.select(found, search, sort)
        return (
            pair_html.pairs(shown, len(found), self._service.draw is not None, can_open()),
            gr.update(visible=bool(known)),
            gr.update(choices=known, value=value),
            pair_html.runs(self._service.runs()),
        )

    def _write(self, name: str | None, use: str, content: float, style: float) -> str:
        try:
            return pair_html.prompt(self._service.pair(name or ""), use, content, style)
        except InvalidInput:  # none is chosen, or it was deleted meanwhile
            return ""

    def _edit(self, name: str | None, use: str, content: float, style: float) -> str:
        try:
            pair = self._service.pair(name or "")
        except InvalidInput:
            return ""
        return pair_html.prompt_edit(pair, use, content, style, toggle=False)

    def _choose(self, request: str, content: float, style: float) -> tuple[Any, ...]:
        """A pair's button Both, Content or Style, or an image of its grid."""

        def choose() -> tuple[str, str, str, tuple[float, float]]:
            row = parse_request(request)
            pair, use = self._service.pair(str(row.get("name"))), str(row.get("use"))
            if use not in pair_html.USES:
                raise InvalidInput(_UNKNOWN)
            named = pair_html.weights_in(row)
            weights = named or (content, style)
            edit = pair_html.prompt_edit(pair, use, *weights, toggle=named is None)
            return pair.name, use, edit, weights

        chosen, problem = attempt(choose)
        if chosen is None:
            return gr.update(), gr.update(), gr.update(), "", problem, gr.update(), gr.update()
        name, use, edit, weights = chosen
        known = [pair.name for pair in self._service.pairs()]
        where = "in the Prompt field" if self._to_prompt is None else "for txt2img"
        said = message(f"Prompt {where}: {use} of {name}.")
        listed = gr.update(choices=known, value=name)
        return listed, use, gr.update(visible=True), edit, said, *weights

    def _for_run(self, request: str, *finding: Any) -> tuple[Any, ...]:
        """Resume, Start again or Delete of an unfinished run."""

        def obey() -> tuple[str, str]:
            row = parse_request(request)
            name = str(row.get("name"))
            if row.get("do") == "delete":
                return name, ""
            begin = self._service.restart if row.get("do") == "restart" else self._service.resume
            return "", f"{begin(name).name} is in the queue: see the Train tab."

        answer, problem = attempt(obey)
        name, text = answer or ("", "")
        asked = self.menu.ask("delete run", name, delete_run(name)) if name else self.menu.ask()
        return (problem or message(text), *asked, *self._look(*finding))

    def _do(self, asked: Any, text: str, licence: str, *finding: Any) -> tuple[Any, ...]:
        """After a yes to the menu's question."""
        return (self.menu.do(asked, text, licence), *self.menu.ask(), *self._look(*finding))
