"""What the menu of a pair's card does, and the question that comes before some of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from unziplora.app.own_machine import open_folder
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.lora.publish import LICENCES, zip_of
from unziplora.ui.answers import attempt, message_from, parse_request
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.grid_html import weight_grid
from unziplora.ui.html import message
from unziplora.ui.sheet_part import draw_sheet
from unziplora.ui.timeline import Timeline

NO_LICENCE = "no licence"
_STEPS = "Move the slider to see the run's earlier previews."
_NO_STEPS = "The run of this pair kept no earlier previews."
_UNKNOWN = "The page requested something unknown. Reload it."


@dataclass(frozen=True)
class Question:
    """What is asked before something is done. button: says yes. field: the label of a text that is
    typed, with the text that stands there at first; licence: whether one is chosen."""

    text: str
    button: str
    field: str = ""
    value: str = ""
    licence: bool = False
    dangerous: bool = False


@dataclass(frozen=True)
class _Shown:
    """What an entry leads to. asked: updates for a question. steps_of: the run whose earlier steps
    are shown."""

    answer: str = ""
    sheet: Any = field(default_factory=gr.update)
    asked: list[Any] | None = None
    steps_of: str | None = None
    grid: str = ""


class CardMenu:
    """The question's part of the page, and what an entry or an answer does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.answer = plain_html(elem_id="uz_results_message")
        with gr.Column(visible=False, elem_id="uz_confirm") as self.part:
            self.question = plain_html()
            with gr.Row():
                self.text = gr.Textbox(label="Name", max_lines=1, visible=False,
                                       elem_id="uz_answer")  # fmt: skip
                self.licence = gr.Dropdown(
                    [NO_LICENCE, *LICENCES], value=NO_LICENCE, label="Licence", visible=False,
                    elem_id="uz_licence",
                )  # fmt: skip
            with gr.Row():
                self.yes = gr.Button("Yes", size="sm", elem_id="uz_answer_yes")
                self.no = gr.Button("Cancel", size="sm", elem_id="uz_answer_no")
        self.timeline = Timeline(service, "uz_results")
        self.timeline.connect(self.answer)
        self.asked = gr.State(("", ""))
        self.asking = [
            self.asked, self.part, self.question, self.text, self.licence, self.yes,
        ]  # fmt: skip
        when(self.no.click, lambda: self.ask(), None, self.asking)

    def ask(self, kind: str = "", name: str = "", question: Question | None = None) -> list[Any]:
        """Updates of `asking`: a question, or none."""
        if question is None:
            return [("", ""), gr.update(visible=False), "", *(gr.update() for _ in range(3))]
        return [
            (kind, name),
            gr.update(visible=True),
            message(question.text),
            gr.update(
                visible=bool(question.field), label=question.field or "Name", value=question.value
            ),
            gr.update(visible=question.licence, value=NO_LICENCE),
            gr.update(value=question.button, variant="stop" if question.dangerous else "primary"),
        ]

    def choose(self, request: str, content: float, style: float, here: bool) -> tuple[Any, ...]:
        """An entry of a card's menu: updates of the answer, of `asking`, of the sheet, of the
        timeline and of the grid. here: whether the visitor sits at this computer."""
        row, problem = attempt(lambda: parse_request(request))
        name, do = str((row or {}).get("name")), str((row or {}).get("do"))
        entries = {"sheet": self._sheet, "grid": self._grid, "steps": self._steps}
        if do in entries:
            shown = entries[do](name, (content, style))
        elif do == "open":
            shown = _Shown(message_from(lambda: self._open(name, here)))
        elif do in _QUESTIONS:
            shown = self._question(do, name)
        else:
            shown = _Shown(problem or message(_UNKNOWN, error=True))
        timeline = self.timeline.open(shown.steps_of)
        return (
            shown.answer, *(shown.asked or self.ask()), shown.sheet, *timeline, shown.grid,
        )  # fmt: skip

    def _sheet(self, name: str, weights: tuple[float, float]) -> _Shown:
        return _Shown(*draw_sheet(self._service, name, name, *weights))

    def _grid(self, name: str, _: tuple[float, float]) -> _Shown:
        grid, problem = attempt(lambda: self._service.weight_grid(name, name))
        if grid is None:
            return _Shown(problem)
        return _Shown(grid=weight_grid(grid, {"use": "both", "name": name}, to="use"))

    def _steps(self, name: str, _: tuple[float, float]) -> _Shown:
        kept = self.timeline.has_several(name)
        return _Shown(message(_STEPS if kept else _NO_STEPS), steps_of=name)

    def _question(self, do: str, name: str) -> _Shown:
        asked, problem = attempt(lambda: _QUESTIONS[do](self._service, name))
        return _Shown(problem, asked=self.ask(do, name, asked))

    def do(self, asked: Sequence[str], text: str, licence: str) -> str:
        """What was asked for, after a yes; the message."""
        kind, name = asked
        action = _ACTIONS.get(kind)
        if action is None:
            return message(_UNKNOWN, error=True)
        return message_from(lambda: action(self._service, name, (text or "").strip(), licence))

    def _open(self, name: str, here: bool) -> str:
        folder = self._service.pair(name).content.parent
        if not here:
            raise InvalidInput(
                "The folder can only be shown on the computer that the program runs on. Open it "
                "there."
            )
        open_folder(folder)
        return "The folder is open in your file manager."


def delete_run(name: str) -> Question:
    return Question(
        f"Delete the run {name}, with its saved state? It cannot be resumed then.",
        "Delete for good", dangerous=True,
    )  # fmt: skip


def _delete_pair(service: Service, name: str) -> Question:
    files = ", ".join(service.files_of(name))
    return Question(
        f"Delete {name}? These files are removed: {files}.", "Delete for good", dangerous=True
    )


def _rename(service: Service, name: str) -> Question:
    service.pair(name)
    return Question(
        f"Rename {name}? Prompts that call it by its old name will not find it.", "Rename",
        field="New name", value=name,
    )  # fmt: skip


def _train_more(service: Service, name: str) -> Question:
    pair = service.pair(name)
    return Question(
        f"Train {name} for more steps, on its own image? The result is a pair of its own, and "
        f"{name} stays as it is. The optimizer starts fresh, and the chosen columns stay.",
        "Train", field="Steps more", value=str(max(1, int(pair.steps or 600) // 3)),
    )  # fmt: skip


def _publish(service: Service, name: str) -> Question:
    pair = service.pair(name)
    return Question(
        "A folder with both files, images and a model card is made, and a zip of it. Choose the "
        "licence that its visitors get.",
        "Make the folder", field="Title", licence=True,
        value=f"{pair.content_trigger} and {pair.style_trigger}",
    )  # fmt: skip


def _steps(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(f"Steps cannot be {text[:40]!r}. Type a whole number.") from error


def _published(service: Service, name: str, title: str, licence: str) -> str:
    chosen = licence if licence in LICENCES else None
    folder = service.publish(name, title=title or None, licence=chosen)
    return f"The folder to publish is {folder}, and its zip {zip_of(folder)}."


def _deleted_run(service: Service, name: str, *_: str) -> str:
    service.delete_run(name)
    return f"The run {name} is deleted."


_QUESTIONS: Mapping[str, Callable[[Service, str], Question]] = {
    "delete": _delete_pair, "rename": _rename, "train more": _train_more, "publish": _publish,
}  # fmt: skip
_ACTIONS: Mapping[str, Callable[[Service, str, str, str], str]] = {
    "delete": lambda service, name, *_: f"Deleted: {', '.join(service.delete(name))}.",
    "delete run": _deleted_run,
    "rename": lambda service, name, new, _: f"{name} is {service.rename(name, new).name} now.",
    "train more": lambda service, name, steps, _: (
        f"{service.train_more(name, _steps(steps)).name} is in the queue: see the Train tab."
    ),
    "publish": _published,
}
