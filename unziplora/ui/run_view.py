"""The run on the Train tab: progress, commands, previews, curves and the queue."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from unziplora.app.job import ENDED, Job, State
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.training.events import Previewed
from unziplora.ui import queue_html, run_html
from unziplora.ui.answers import attempt, parse_request
from unziplora.ui.finish_html import finish_card
from unziplora.ui.gradio_compat import hidden, plain_html
from unziplora.ui.html import message
from unziplora.ui.timeline import Timeline


@dataclass(frozen=True)
class Command:
    """A button: its label, the message that answers it, and the states in which it is there."""

    label: str
    message: str
    states: tuple[State, ...] = ("running",)


COMMANDS: Mapping[str, Command] = {
    "preview now": Command("Preview now", "Previews are drawn after this step."),
    "save now": Command("Save now", "The state and a snapshot are saved after this step."),
    "pause": Command("Pause", "The run pauses after this step and frees the model."),
    "resume": Command(
        "Resume", "The run continues when its turn comes.", ("paused", "stopped", "failed")
    ),
    "stop and save": Command(
        "Stop and save", "The run ends after this step and writes both LoRAs."
    ),
    "stop": Command(
        "Stop", "The run stops after this step. It can be resumed.",
        ("running", "waiting", "paused"),
    ),
}  # fmt: skip
STOP_QUESTION = (
    "Stop without writing the LoRAs? The state is saved, and the run can be resumed later."
)
_PARTS = ("images", "curves", "notes")


class RunView:
    """What a look at the run and the queue shows. Only what has changed since this visitor's last
    look is sent, so that images do not flicker and nothing is drawn again that stays."""

    def __init__(self, service: Service, in_webui: bool) -> None:
        self._service, self._in_webui = service, in_webui
        with hidden():  # in the page itself: a gr.State is lost when the program restarts
            self.state = gr.Textbox()
        with gr.Column(elem_id="uz_progress"):
            self.head = plain_html(run_html.headline(None), elem_id="uz_live")
            with gr.Row(elem_id="uz_commands", visible=False) as self._row:
                self.buttons = {name: _button(name) for name in COMMANDS}
            with gr.Row(visible=False, elem_id="uz_stop_confirm") as self.confirm:
                plain_html(f'<div class="uz-note" role="alert">{STOP_QUESTION}</div>')
                self.confirm_stop = gr.Button(
                    "Stop now", variant="stop", size="sm", elem_id="uz_stop_yes"
                )
                self.keep_running = gr.Button("Keep training", size="sm", elem_id="uz_stop_no")
        self._parts = [plain_html(elem_id=f"uz_{part}") for part in _PARTS]
        self.timeline = Timeline(service, "uz")
        self._queue = plain_html(elem_id="uz_queue")

    @property
    def outputs(self) -> list[Any]:
        return [
            self.state, self.head, *self._parts, self._queue, self._row, *self.buttons.values(),
            *self.timeline.outputs,
        ]  # fmt: skip

    def look(self, before: str | None) -> tuple[Any, ...]:
        """The state and an update of each output; one that fails is tried again at the next look
        (a preview may be replaced while it is read)."""
        known = parse_marks(before)
        try:
            job = self._service.jobs.shown()
            now = self._render(job)
        except Exception:  # a border: the next look tries again
            traceback.print_exc()
            return tuple(gr.update() for _ in self.outputs)
        state, marks = job.state if job else None, [_mark(html) for html in now]
        updates = _changed(now, marks, known.get("html"))
        visible = [job is not None, *(state in command.states for command in COMMANDS.values())]
        same = known.get("state", "") == state
        updates += [gr.update() if same else gr.update(visible=shown) for shown in visible]
        previews = _previews(job)
        if previews != known.get("previews", ""):
            updates += self.timeline.open(job.name if job else None)
        else:
            updates += [gr.update() for _ in self.timeline.outputs]
        return (json.dumps({"state": state, "html": marks, "previews": previews}), *updates)

    def answered(self, before: str | None, action: Callable[[], str]) -> tuple[Any, ...]:
        """The message of an action, and a look. Where a run has begun by then, nothing: that it
        waits would stand above it to its end."""
        text, problem = attempt(action)
        looked = self.look(before)
        begun = isinstance(looked[0], str) and has_started(before, looked[0])
        said = problem if text is None else "" if begun else message(text)
        return said, *looked

    def obey(self, request: str | None, command: str | None) -> str:
        """Sends a command to the run that is shown, or to the one that a button in HTML names; the
        answer. Raises InvalidInput."""
        job: Job | None
        if command is None:
            row = parse_request(request)
            command = str(row.get("do"))
            if command == "resume run":
                return f"{self._service.resume(str(row.get('name'))).name} is in the queue."
            job = self._service.jobs.get(str(row.get("id")))
        else:
            job = self._service.jobs.shown()
        if job is None:
            raise InvalidInput("There is no run. Train one first.")
        if command == "run next" and job.state == "waiting":
            self._service.jobs.send(job.id, command)
            return f"{job.name} is the next to run."
        known = COMMANDS.get(command)
        allowed = command == "cancel" or (known is not None and job.state in known.states)
        if not allowed:
            raise InvalidInput(f"{job.name} is {job.state} already. There is nothing to {command}.")
        self._service.jobs.send(job.id, command)
        return f"{job.name} is cancelled." if command == "cancel" else COMMANDS[command].message

    def _render(self, job: Job | None) -> list[str]:
        queue = self._queued(job)
        if job is None:
            resumable = self._service.resumable()
            head = queue_html.unfinished(resumable) if resumable else run_html.headline(None)
            return [head, "", "", "", queue]
        trained_on = self._service.run_folder(job.name).image
        finished = job.state in ENDED and bool(job.files)
        shown = finish_card(job, trained_on, self._in_webui) if finished else None
        return [
            run_html.headline(job),
            shown or run_html.images(job, trained_on),
            run_html.curves(job),
            run_html.notes(job),
            queue,
        ]

    def _queued(self, shown: Job | None) -> str:
        """Of the other runs."""
        jobs = self._service.jobs
        paused = [job for job in jobs.all() if job.state == "paused"]
        others = [job for job in (*jobs.waiting(), *paused) if job is not shown]
        times = {job.id: self._service.expected_seconds(job) for job in others}
        return queue_html.queue(others, times)


def has_ended(before: str | None, now: str | None) -> bool:
    """Whether the run has ended since the last look: what was answered before is old news."""
    earlier, later = parse_marks(before).get("state"), parse_marks(now).get("state")
    return later in ENDED and earlier not in (*ENDED, None)


def has_started(before: str | None, now: str | None) -> bool:
    """Whether a run has begun since the last look."""
    earlier, later = parse_marks(before).get("state"), parse_marks(now).get("state")
    return later == "running" and earlier != "running"


def parse_marks(text: str | None) -> dict[str, Any]:
    """What a visitor's page has, as the last look said; nothing for a new one."""
    try:
        marks = json.loads(text) if text else {}
    except (ValueError, RecursionError):  # not from our page
        marks = {}
    return marks if isinstance(marks, dict) else {}


def _changed(now: list[str], marks: list[str], known: Any) -> list[Any]:
    """Updates of what has other marks than the visitor's page knows."""
    earlier = known if isinstance(known, list) and len(known) == len(now) else [""] * len(now)
    return [
        gr.update() if mark == before else html
        for html, mark, before in zip(now, marks, earlier, strict=True)
    ]


def _previews(job: Job | None) -> str:
    """Changes when a run has new previews, or another run is shown."""
    if job is None:
        return ""
    drawn = [event.step for _, event in job.events() if isinstance(event, Previewed)]
    return f"{job.id} {job.name} {drawn[-1] if drawn else 0}"


def _mark(html: str) -> str:
    return hashlib.sha1(html.encode(), usedforsecurity=False).hexdigest()[:12]


def _button(name: str) -> Any:
    return gr.Button(
        COMMANDS[name].label, size="sm", min_width=100, visible=False,
        variant="stop" if name == "stop" else "secondary",
        elem_id=f"uz_{name.replace(' ', '_')}",
    )  # fmt: skip
