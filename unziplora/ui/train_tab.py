"""The Train tab: what to train, and the run that goes on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from unziplora.app.job_queue import ENDED, Job, State
from unziplora.app.service import Service
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.images.load import open_image
from unziplora.ui import advanced_fields as fields
from unziplora.ui import copy_report as report_part
from unziplora.ui import run_html as render
from unziplora.ui.answers import told
from unziplora.ui.gradio_compat import hidden, image_input, plain_html, when
from unziplora.ui.host_features import HostFeatures

_LEAD = "One image in, two LoRAs out: what it shows, and how it is made."
# by command: the button, and what is answered
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "preview now": ("Preview now", "Previews are made after this step."),
    "save now": ("Save now", "The state and a snapshot are saved after this step."),
    "pause": ("Pause", "The run pauses after this step and gives the model back."),
    "resume": ("Resume", "The run goes on when its turn comes."),
    "stop and save": ("Stop and save", "The run ends after this step, and writes both LoRAs."),
    "stop": ("Stop", "The run stops after this step. It can be resumed from Results."),
}
_WHEN: Mapping[State, tuple[str, ...]] = {
    "running": ("preview now", "save now", "pause", "stop and save", "stop"),
    "waiting": ("stop",),
    "paused": ("resume", "stop"),
    "stopped": ("resume",),
    "failed": ("resume",),
}


def build(service: Service, features: HostFeatures) -> None:
    """Inside a TabItem."""
    plain_html(f'<p class="uz-lead">{_LEAD}</p>')
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            image = image_input(label="Image", elem_id="uz_image", height=300)
            with gr.Row(visible=bool(features.images)):
                fetch = [_fetch(label) for label in features.images]
        with gr.Column(scale=2, min_width=300):
            subject, style, name, preset = _words()
            suggest = _suggest_button() if features.suggest is not None else None
            values = fields.advanced(features.preview_every)
    go = gr.Button("Train both LoRAs", variant="primary", elem_id="uz_train")
    estimate = plain_html(elem_id="uz_estimate")
    said = plain_html(elem_id="uz_said")
    view = _RunView(service)
    report_part.build(lambda: service.report(job.id if (job := service.jobs.shown()) else None))
    shown = [said, *view.outputs]
    needing = [values[field] for field in fields.NEEDING]

    def poll(view_state: Any, shown: str, *typed: Any) -> tuple[Any, ...]:
        looked = view.look(view_state)
        ended = isinstance(looked[0], str) and _ended(view_state, looked[0])
        needed = _estimate(service, typed)
        return (gr.update() if needed == shown else needed), ("" if ended else gr.update()), *looked

    def start(view_state: Any, image: bytes | None, *given: Any) -> tuple[Any, ...]:
        def begin() -> str:
            if image is None:
                raise InvalidInput("There is no image. Drop one, paste it, or choose a file.")
            subject, style, name, *typed = given
            named = dict(zip(values, typed, strict=True))
            settings, overwrite = fields.settings(subject, style, name, named)
            job = service.start(image, settings, overwrite=overwrite)
            return f"{job.name} is in the queue."

        return told(begin), *view.look(view_state)

    def order(view_state: Any, asked: Any, command: str | None = None) -> tuple[Any, ...]:
        return told(lambda: _obey(service, asked, command)), *view.look(view_state)

    def ordering(command: str) -> Callable[[Any], tuple[Any, ...]]:
        return lambda view_state: order(view_state, None, command)

    inputs = [view.state, image, subject, style, name, *values.values()]
    when(go.click, start, inputs, shown)
    for command, button in view.buttons.items():
        when(button.click, ordering(command), [view.state], shown)
    with hidden():
        look = gr.Button(elem_id="uz_poll")
        asked, ask = gr.Textbox(), gr.Button(elem_id="uz_ask_train")
    # outside gradio's queue, in which a sheet that is drawn would hold it up
    seen = [view.state, estimate, *needing]
    looked = when(look.click, poll, seen, [estimate, *shown], queue=False)
    when(looked.then, None, None, None, js="() => { window.unziplora.asking = 0; return []; }")
    js = "(state) => [state, window.unziplora.asked]"
    when(ask.click, order, [view.state, asked], shown, js=js)
    chosen = fields.preset_fields(values)
    when(preset.change, lambda name: fields.preset(name, service.smallest_plan), [preset], chosen)
    for button, js in zip(fetch, features.images.values(), strict=True):
        when(button.click, _fetched, [asked], [image, said], js=js)
    if suggest is not None:
        when(suggest.click, _suggesting(features), [image], [style, said], show_progress="minimal")


def _words() -> tuple[Any, Any, Any, Any]:
    with gr.Row():
        subject = gr.Textbox(
            label="Subject", info="what it is, one word", placeholder="cat", max_lines=1,
            min_width=140, elem_id="uz_subject",
        )  # fmt: skip
        style = gr.Textbox(
            label="Style", info="two or three words", placeholder="watercolor painting",
            max_lines=1, min_width=140, elem_id="uz_style",
        )  # fmt: skip
        name = gr.Textbox(
            label="Name", info="of the files", placeholder="made of the words", max_lines=1,
            min_width=140, elem_id="uz_name",
        )  # fmt: skip
    preset = gr.Radio(
        list(fields.PRESETS), value="Paper", label="Preset", info=fields.PRESETS_SAID,
        elem_id="uz_preset",
    )  # fmt: skip
    return subject, style, name, preset


def _fetch(label: str) -> Any:
    return gr.Button(label, size="sm")


def _suggest_button() -> Any:
    return gr.Button("Suggest style words", size="sm", elem_id="uz_suggest")


def _fetched(data_url: str | None) -> tuple[Any, str]:
    """The image that a WebUI's page handed over, into the image's field."""
    found: list[Any] = []

    def decode() -> str:
        try:
            data = base64.b64decode((data_url or "").rpartition("base64,")[2], validate=True)
        except binascii.Error:
            data = b""
        if not data:
            raise InvalidInput("There is no image to take. Make one first, or drop a file here.")
        found.append(open_image(data).image)
        return "The image is taken over."

    answer = told(decode)
    return (found[0] if found else gr.update()), answer


def _suggesting(features: HostFeatures) -> Callable[[bytes | None], tuple[Any, str]]:
    def suggest(image: bytes | None) -> tuple[Any, str]:
        words: list[str] = []

        def ask() -> str:
            if image is None:
                raise InvalidInput("There is no image to look at. Drop one first.")
            assert features.suggest is not None
            words.append(features.suggest(open_image(image).image))
            return "These are the WebUI's words for the style. Change them as you like."

        answer = told(ask)
        return (words[0] if words else gr.update()), answer

    return suggest


def _obey(service: Service, asked: Any, command: str | None) -> str:
    """Sends a command to the run that is shown, or to the one that a row of the queue names."""
    if command is None:
        try:
            row = json.loads(asked)
            job, command = service.jobs.get(str(row["id"])), str(row["do"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput("The page asked for something unknown. Reload it.") from error
    else:
        shown = service.jobs.shown()
        if shown is None:
            raise InvalidInput("There is no run. Train one first.")
        job = shown
    if command != "cancel" and command not in _WHEN.get(job.state, ()):
        raise InvalidInput(f"{job.name} is {job.state} already. There is nothing to {command}.")
    service.jobs.send(job.id, command)
    return f"{job.name} is cancelled." if command == "cancel" else _COMMANDS[command][1]


def _estimate(service: Service, typed: Sequence[Any]) -> Any:
    """What a run would need, as HTML. While one goes on, what stands there stays: the memory that
    it has is not free, and yet would be for the next one."""
    if service.jobs.current is not None:
        return gr.update()
    try:
        expected = service.forecast(fields.given(dict(zip(fields.NEEDING, typed, strict=True))))
    except UnZipLoRAError as error:
        return render.aside(str(error))  # said as an error once the button is pressed
    except Exception:  # an estimate that fails must not keep the page from its news
        traceback.print_exc()
        return gr.update()
    return "" if expected is None else render.estimate(*expected)


def _ended(before: str | None, now: str | None) -> bool:
    """Whether the run has ended since the last look: what was answered before is old news."""
    earlier, later = marks_of(before).get("state"), marks_of(now).get("state")
    return later in ENDED and earlier not in (*ENDED, None)


class _RunView:
    """What a look at the run and the queue shows. Only what has changed since this visitor's last
    look is sent, so that images do not flicker and nothing is drawn anew that stays."""

    def __init__(self, service: Service) -> None:
        self._service = service
        with hidden():  # in the page itself: a gr.State is lost when the program starts anew
            self.state = gr.Textbox()
        self.head = plain_html(render.headline(None), elem_id="uz_live")
        with gr.Row(elem_id="uz_commands", visible=False) as self._row:
            self.buttons = {
                command: gr.Button(
                    label, size="sm", min_width=100, interactive=False,
                    elem_id=f"uz_{command.replace(' ', '_')}",
                )
                for command, (label, _) in _COMMANDS.items()
            }  # fmt: skip
        self._parts = [plain_html(elem_id=f"uz_{part}") for part in ("images", "curves", "notes")]
        self._queue = plain_html(elem_id="uz_queue")

    @property
    def outputs(self) -> list[Any]:
        return [
            self.state, self.head, *self._parts, self._queue, self._row, *self.buttons.values(),
        ]  # fmt: skip

    def look(self, before: str | None) -> tuple[Any, ...]:
        """The state and an update of each output; one that fails is tried again at the next look
        (a preview may be replaced while it is read)."""
        known = marks_of(before)
        try:
            job = self._service.jobs.shown()
            now = self._now(job)
        except Exception:
            traceback.print_exc()
            return tuple(gr.update() for _ in self.outputs)
        allowed = _WHEN.get(job.state, ()) if job else ()
        state, marks = job.state if job else None, [_mark(html) for html in now]
        earlier = known.get("html")
        if not isinstance(earlier, list) or len(earlier) != len(now):
            earlier = [""] * len(now)
        updates: list[Any] = [
            gr.update() if mark == before else html
            for html, mark, before in zip(now, marks, earlier, strict=True)
        ]
        same = known.get("state", "") == state
        updates.append(gr.update() if same else gr.update(visible=job is not None))
        updates += [
            gr.update() if same else gr.update(interactive=command in allowed)
            for command in self.buttons
        ]
        return (json.dumps({"state": state, "html": marks}), *updates)

    def _now(self, job: Job | None) -> list[str]:
        others = [other for other in self._service.jobs.all() if other is not job]
        return [
            render.headline(job),
            render.images(job),
            render.curves(job),
            render.notes(job),
            render.queue(others),
        ]


def marks_of(text: str | None) -> dict[str, Any]:
    """What a visitor's page has, as the last look said; nothing for a new one."""
    try:
        marks = json.loads(text) if text else {}
    except (ValueError, RecursionError):  # not from our page
        marks = {}
    return marks if isinstance(marks, dict) else {}


def _mark(html: str) -> str:
    return hashlib.sha1(html.encode(), usedforsecurity=False).hexdigest()[:12]
