"""The Train tab: what to train, and the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from unziplora import mini
from unziplora.app.preset_files import PresetFiles
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.training.settings import Settings
from unziplora.ui import advanced_fields as fields
from unziplora.ui import copy_report, manifest_part, model_header, presets
from unziplora.ui.answers import attempt, message_from, parse_request
from unziplora.ui.block_fields import updates_for
from unziplora.ui.gradio_compat import hidden, plain_html, when
from unziplora.ui.help_html import HELP
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.html import aside, message
from unziplora.ui.model_header import Header
from unziplora.ui.preset_part import connect_presets
from unziplora.ui.requests import Requests
from unziplora.ui.run_view import RunView, has_ended, has_started
from unziplora.ui.train_form import Form, build_form, connect

_LEAD = "One image in, two LoRAs out: its content and its style."
BLOCK_LISTS = ("blocks_content", "blocks_style")
# shown by page.js
_AWAY = (
    '<div id="uz_away" class="uz-error uz-away" role="alert">The server does not answer. If it was '
    "closed, start it again; a run that was training can be resumed from its last save.</div>"
    '<div id="uz_back" class="uz-note uz-away" role="status">The server is back. Reload the page.'
    "</div>"
)


def build(service: Service, features: HostFeatures, requests: Requests, poll: Any) -> Any:
    """Inside a TabItem. poll: a hidden button, which page.js presses. Gives the field of the pair
    that a run begins with."""
    plain_html(_AWAY + f'<p class="uz-lead">{_LEAD}</p>{HELP}')
    header = plain_html(elem_id="uz_model")
    form = build_form(features)
    go = gr.Button("Train both LoRAs", variant="primary", elem_id="uz_train")
    answer = plain_html(elem_id="uz_message")
    view = RunView(service, features.to_prompt is not None)
    manifest_part.build(service)
    copy_report.build(lambda: service.report(job.id if (job := service.jobs.shown()) else None))
    connect(form, service, features, answer)
    _connect_run(service, form, view, go, answer)
    view.timeline.connect(answer)
    _connect_requests(view, requests, answer)
    _connect_editing(service, form, view, requests, answer)
    _connect_news(service, form, view, poll, header, answer)
    return form.fields["start_from"]


def _connect_run(service: Service, form: Form, view: RunView, go: Any, answer: Any) -> None:
    """Starting a run, and its commands."""
    shown = [answer, *view.outputs]

    def start(marks: Any, *values: Any) -> tuple[Any, ...]:
        def begin() -> str:
            image, settings, begins = form.read(*values)
            return f"{service.start(image, settings, **begins).name} is in the queue."

        return view.answered(marks, begin)

    def send(command: str) -> Callable[[Any], tuple[Any, ...]]:
        return lambda marks: (message_from(lambda: view.obey(None, command)), *view.look(marks))

    def stop(marks: Any) -> tuple[Any, ...]:
        """A running one only after a question: nothing is written."""
        if service.jobs.current is not None:
            return gr.update(visible=True), "", *view.look(marks)
        return gr.update(visible=False), *send("stop")(marks)

    def stop_now(marks: Any) -> tuple[Any, ...]:
        return gr.update(visible=False), *send("stop")(marks)

    when(go.click, start, [view.state, *form.inputs], shown)
    for command, button in view.buttons.items():
        if command != "stop":
            when(button.click, send(command), [view.state], shown)
    when(view.buttons["stop"].click, stop, [view.state], [view.confirm, *shown])
    when(view.confirm_stop.click, stop_now, [view.state], [view.confirm, *shown])
    when(view.keep_running.click, lambda: gr.update(visible=False), None, [view.confirm])


def _connect_requests(view: RunView, requests: Requests, answer: Any) -> None:
    """The buttons inside the queue's HTML."""

    def obey(marks: Any, request: str) -> tuple[Any, ...]:
        return view.answered(marks, lambda: view.obey(request, None))

    with hidden():
        request = gr.Textbox()
    requests.answer("train", obey, [view.state, request], [answer, *view.outputs], at=1)


def _connect_editing(
    service: Service, form: Form, view: RunView, requests: Requests, answer: Any
) -> None:
    """The queue's button Edit: the run stands in the fields, to be changed and queued again."""

    def edit(marks: Any, request: str) -> tuple[Any, ...]:
        def take_back() -> tuple[bytes, Settings]:
            return service.jobs.take_back(str(parse_request(request).get("id")))

        taken, problem = attempt(take_back)
        if taken is None:
            return (problem, *(gr.update() for _ in form.inputs), *view.look(marks))
        image, settings = taken
        text = f"{settings.file_name} is out of the queue and in the fields. Train queues it again."
        return (message(text), *form.values_of(image, settings), *view.look(marks))

    with hidden():
        request = gr.Textbox()
    outputs = [answer, *form.inputs, *view.outputs]
    requests.answer("edit", edit, [view.state, request], outputs, at=1)


def _connect_news(
    service: Service, form: Form, view: RunView, poll: Any, header: Any, answer: Any
) -> None:
    """What page.js asks for every few seconds."""
    store = PresetFiles(service.folder, service.runs_at)
    list_presets = connect_presets(form.presets, form.fields, store, answer)
    of_model = [form.fields[name] for name in (*fields.DEFAULT_FIELDS, *BLOCK_LISTS)]
    outputs = [form.preset_note, form.example, form.presets["name"], *of_model]

    def news(marks: Any, line: str, note: str, *typed: Any) -> tuple[Any, ...]:
        looked = view.look(marks)
        now = looked[0] if isinstance(looked[0], str) else marks
        old = has_ended(marks, now) or has_started(marks, now)
        shown = _header(service, line, typed)
        list_pairs = not marks or has_ended(marks, now)
        return (
            gr.update(choices=_pairs(service)) if list_pairs else gr.update(),
            gr.update(visible=False) if has_ended(marks, now) else gr.update(),
            gr.update() if shown is None or shown.line == line else shown.line,
            *_of_model(service, note, shown, str(typed[0]), list_presets, len(outputs)),
            "" if old else gr.update(),
            *looked,
        )

    forecast = [form.fields[name] for name in fields.FORECAST_FIELDS]
    looked = when(
        poll.click,
        news,
        [view.state, header, form.preset_note, *forecast],
        [form.fields["start_from"], view.confirm, header, *outputs, answer, *view.outputs],
    )
    # not `then`: gradio 4 would take a server that went away for one that has answered
    js = "() => { window.unziplora.polled = 0; return []; }"
    when(looked.success, None, None, None, js=js)


def _pairs(service: Service) -> list[str]:
    return [fields.NO_PAIR, *(pair.name for pair in service.pairs())]


def _header(service: Service, shown: str, typed: Sequence[Any]) -> Header | None:
    """The model's line. While a run has the model, what stands there stays: its memory is not free
    now, and yet would be for the next run."""
    if service.jobs.current is not None and shown:
        return None
    try:
        settings = fields.read_fields(dict(zip(fields.FORECAST_FIELDS, typed, strict=True)))
    except InvalidInput as error:
        return Header(aside(str(error)))  # shown as an error once the button is pressed
    return model_header.header(service, settings)


def _of_model(
    service: Service, shown: str, header: Header | None, method: str,
    list_presets: Callable[[], Any], count: int,
) -> list[Any]:  # fmt: skip
    """Updates of what depends on the loaded model, where that is another than the shown one: the
    presets' line, the example, the defaults in the fields and the blocks. A page that was just
    opened gets its list of presets too."""
    nothing = [gr.update()] * count
    if header is None or (header.architecture is None and shown):
        return nothing
    defaults = service.model_defaults(method)
    known = header.architecture is not None
    architecture = str(defaults["architecture"] or header.architecture)
    identity = model_header.known_checkpoint(service)
    is_mini = identity is not None and identity.name == mini.MODEL.name
    key = f"{architecture} {is_mini}" if known else ""
    note = f'<div data-model="{escape(key)}">{aside(presets.describe(defaults))}</div>'
    if note == shown:
        return nothing
    same = not known or f'data-model="{key}"' in shown
    blocks = nothing[: len(BLOCK_LISTS)] if same else updates_for(architecture)
    return [
        note, gr.update(visible=is_mini), list_presets(), *fields.placeholders(defaults), *blocks,
    ]  # fmt: skip
