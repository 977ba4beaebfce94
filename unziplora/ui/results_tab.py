"""The Results tab: what was trained, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui import pair_html
from unziplora.ui.answers import attempt, message_from, parse_request
from unziplora.ui.gradio_compat import copyable_text, hidden, plain_html, when
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.html import message
from unziplora.ui.sheet_part import action, draw_sheet, sheet_image, weight_sliders

_UNKNOWN = "The page requested something unknown. Reload it."
_REQUEST = "(_, ...rest) => [window.unziplora.request, ...rest]"


def build(service: Service, features: HostFeatures, requests: Mapping[str, Any], tab: Any) -> None:
    """Inside a TabItem, at whose selection the list is read again. requests: hidden buttons, which
    page.js presses."""
    results = _Results(service, features, requests)
    results.connect_list(tab)
    results.connect_prompt()
    results.connect_cards()


class _Results:
    def __init__(
        self, service: Service, features: HostFeatures, requests: Mapping[str, Any]
    ) -> None:
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
        self.answer = plain_html(elem_id="uz_results_message")
        with gr.Row(visible=False, elem_id="uz_confirm") as self.confirm:
            self.question = plain_html()
            self.yes = gr.Button("Delete for good", variant="stop", size="sm",
                                 elem_id="uz_delete_yes")  # fmt: skip
            self.no = gr.Button("Keep", size="sm", elem_id="uz_delete_no")
        self.sheet = sheet_image("uz_sheet")
        with gr.Row(elem_id="uz_find"):
            self.search = gr.Textbox(label="Search", placeholder="name or words", max_lines=1,
                                     min_width=140, elem_id="uz_search")  # fmt: skip
            self.sort = gr.Dropdown(list(pair_html.SORTS), value=pair_html.SORTS[0], label="Sort",
                                    min_width=140, elem_id="uz_sort")  # fmt: skip
        self.cards = plain_html(elem_id="uz_cards")
        self.unfinished = plain_html(elem_id="uz_unfinished")
        self.refresh = gr.Button("Refresh", size="sm", elem_id="uz_refresh")
        self.doomed = gr.State(("", ""))
        with hidden():
            self.request = gr.Textbox()
            self.edit = gr.Textbox(elem_id="uz_edit")
        self.finding = [self.name, self.search, self.sort]
        self.listed = [self.cards, self.chosen, self.name, self.unfinished]
        self.asking = [self.doomed, self.confirm, self.question]

    def connect_list(self, tab: Any) -> None:
        """Reading the list again, and deleting."""
        for event in (tab.select, self.refresh.click, self.search.change, self.sort.change):
            when(event, self._look, self.finding, self.listed)
        changed = [self.answer, *self.asking, *self.listed]
        inputs = [self.request, *self.finding]
        when(self._requests["results"].click, self._for_run, inputs, changed, js=_REQUEST)
        when(self.yes.click, self._delete, [self.doomed, *self.finding], changed)
        when(self.no.click, lambda: _ask("", ""), None, self.asking)

    def connect_prompt(self) -> None:
        """The prompt follows the pair, its use and the weights; cards and a button send it."""
        prompting = [self.name, self.use, self.content, self.style]
        for source in prompting:
            when(source.change, self._write, prompting, [self.prompt])
        chosen = [self.name, self.use, self.chosen, self.edit, self.answer]
        inputs = [self.request, self.content, self.style]
        picked = when(self._requests["use"].click, self._choose, inputs, chosen, js=_REQUEST)
        if self._to_prompt is not None:
            when(picked.then, None, [self.edit], None, js=self._to_prompt)
            edited = when(self.send.click, self._edit, prompting, [self.edit])
            when(edited.then, None, [self.edit], None, js=self._to_prompt)

    def connect_cards(self) -> None:
        """The menu of a card."""
        inputs = [self.request, self.content, self.style]
        outputs = [self.answer, *self.asking, self.sheet]
        when(self._requests["card"].click, self._for_card, inputs, outputs, js=_REQUEST,
             show_progress="minimal")  # fmt: skip

    def _look(self, name: str | None, search: str, sort: str) -> tuple[Any, ...]:
        found = self._service.pairs()
        known = [pair.name for pair in found]
        value = name if name in known else next(iter(known), None)
        shown = pair_html.select(found, search, sort)
        return (
            pair_html.pairs(shown, len(found), self._service.draw is not None),
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
        """A pair's button Both, Content or Style."""

        def choose() -> tuple[str, str, str]:
            row = parse_request(request)
            pair, use = self._service.pair(str(row.get("name"))), str(row.get("use"))
            if use not in pair_html.USES:
                raise InvalidInput(_UNKNOWN)
            edit = pair_html.prompt_edit(pair, use, content, style, toggle=True)
            return pair.name, use, edit

        chosen, problem = attempt(choose)
        if chosen is None:
            return gr.update(), gr.update(), gr.update(), "", problem
        name, use, edit = chosen
        known = [pair.name for pair in self._service.pairs()]
        where = "in the Prompt field" if self._to_prompt is None else "for txt2img"
        said = message(f"Prompt {where}: {use} of {name}.")
        return gr.update(choices=known, value=name), use, gr.update(visible=True), edit, said

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
        doomed, text = answer or ("", "")
        return (problem or message(text), *_ask("run", doomed), *self._look(*finding))

    def _for_card(self, request: str, content: float, style: float) -> tuple[Any, ...]:
        """An entry of a card's menu."""
        row, problem = attempt(lambda: parse_request(request))
        name, do = str((row or {}).get("name")), (row or {}).get("do")
        if do == "delete":
            files, problem = attempt(lambda: self._files(name))
            return (problem, *_ask("pair", name if files else "", files or ()), gr.update())
        if do == "sheet":
            answer, sheet = draw_sheet(self._service, name, name, content, style)
            return (answer, *_ask("", ""), sheet)
        if do == "publish":
            problem = message_from(
                lambda: f"The folder to publish is {self._service.publish(name)}."
            )
        return (problem or message(_UNKNOWN, error=True), *_ask("", ""), gr.update())

    def _files(self, name: str) -> list[str]:
        return [path.name for path in self._service.pair(name).all_files()]

    def _delete(self, doomed: tuple[str, str], *finding: Any) -> tuple[Any, ...]:
        kind, name = doomed

        def delete() -> str:
            if kind == "run":
                self._service.delete_run(name)
                return f"The run {name} is deleted."
            return f"Deleted: {', '.join(self._service.delete(name))}."

        answer = message_from(delete)
        return (answer, *_ask("", ""), *self._look(*finding))


def _ask(kind: str, name: str, files: Any = ()) -> tuple[Any, Any, str]:
    """The question before something is deleted, or none."""
    questions: Mapping[str, str] = {
        "pair": f"Delete {name}? These files are removed: {', '.join(files)}.",
        "run": f"Delete the run {name}, with its saved state? It cannot be resumed then.",
    }
    question = questions[kind] if name else ""
    return (kind, name), gr.update(visible=bool(question)), message(question)
