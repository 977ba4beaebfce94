"""The page: Train, Results, Combine, Inspect. It holds nothing: all of it is read from the service
at every look, so that it may be reloaded, closed or opened twice."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.errors import UnZipLoRAError
from unziplora.jobs import ENDED, Job
from unziplora.lora.combine import overlap, overlap_warning
from unziplora.lora.inspect import inspect as inspect_lora
from unziplora.method.methods import METHODS
from unziplora.service import Service
from unziplora.ui import render
from unziplora.ui.compat import when

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "Paper": {},
    "Fast": {"steps": 300, "lr": 1e-4},
    "Small card": {"memory": "checkpoint", "rank": 16, "resolution": 768},
}
# Clicks the hidden button once a second while the tab is seen: gradio 3.41 has no timer.
POLL = """() => {
  if (window.unziploraPoll) return;
  window.unziploraPoll = setInterval(() => {
    const root = (typeof gradioApp === 'function') ? gradioApp() : document;
    const button = root.querySelector('#uz_poll');
    const live = root.querySelector('#uz_live');
    if (button && live && live.offsetParent !== null) button.click();
  }, 1000);
}"""


@dataclass
class Tools:
    """What a WebUI offers beyond the host. suggest: style words for a picture, by its
    interrogator. to_prompt: JavaScript that puts the text of a box into txt2img's prompt."""

    suggest: Callable[[Any], str] | None = None
    to_prompt: str | None = None
    notes: list[str] = field(default_factory=list)


def build(service: Service, tools: Tools | None = None) -> Any:
    """The page's gr.Blocks."""
    tools = tools or Tools()
    css = (Path(__file__).parent / "style.css").read_text("utf-8")
    with gr.Blocks(analytics_enabled=False, title="UnZipLoRA") as page:
        gr.HTML(f"<style>{css}</style>")  # a WebUI would load a file of its own, the app would not
        with gr.Tabs():
            with gr.TabItem("Train", elem_id="uz_tab_train"):
                _train(service, tools)
            with gr.TabItem("Results", elem_id="uz_tab_results"):
                _results(service, tools)
            with gr.TabItem("Combine", elem_id="uz_tab_combine"):
                _combine(service)
            with gr.TabItem("Inspect", elem_id="uz_tab_inspect"):
                _inspect()
        when(page.load, None, None, None, js=POLL)
    return page


def _train(service: Service, tools: Tools) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            picture = gr.Image(type="pil", label="Picture", elem_id="uz_picture", height=280)
        with gr.Column(scale=2, min_width=320):
            subject = gr.Textbox(
                label="Subject",
                info="what it is, one word",
                placeholder="cat",
                elem_id="uz_subject",
            )
            style = gr.Textbox(
                label="Style",
                info="how it is made, two or three words",
                placeholder="watercolor painting",
                elem_id="uz_style",
            )
            name = gr.Textbox(
                label="Name",
                info="of the two files; empty: made of the words",
                placeholder="cat-watercolor-painting",
                elem_id="uz_name",
            )
            preset = gr.Radio(
                list(PRESETS),
                value="Paper",
                label="Preset",
                info="Fast: half the steps. Small card: checkpointing, rank 16, 768 px",
                elem_id="uz_preset",
            )
            go = gr.Button("Train both LoRAs", variant="primary", elem_id="uz_train")
    fields = _advanced()
    said = gr.HTML(elem_id="uz_said")
    with gr.Row():
        buttons = {
            command: gr.Button(label, elem_id=f"uz_{command.replace(' ', '_')}", size="sm")
            for command, label in (
                ("preview now", "Preview"),
                ("save now", "Save now"),
                ("pause", "Pause"),
                ("resume", "Resume"),
                ("stop and save", "Stop and save"),
                ("stop", "Stop"),
            )
        }
    live = gr.HTML(render.progress(_shown(service)), elem_id="uz_live")
    waiting = gr.HTML(elem_id="uz_waiting")
    poll = gr.Button("look again", elem_id="uz_poll", elem_classes=["uz-hidden"])

    def look() -> tuple[str, str]:
        return render.progress(_shown(service)), render.queue(service.jobs.all())

    def start(
        image: Any, subject: str, style: str, name: str, preset: str, *values: Any
    ) -> tuple[str, str, str]:
        try:
            if image is None:
                raise UnZipLoRAError("There is no picture. Drop one, or paste it.")
            given = _given(subject, style, name, preset, dict(zip(fields, values, strict=True)))
            overwrite = bool(given.pop("overwrite", False))
            job = service.start(_png(image), given, overwrite=overwrite)
        except UnZipLoRAError as error:
            return render.message(str(error), error=True), *look()
        return render.message(f"{job.name} is in the queue."), *look()

    def command(word: str) -> Callable[[], tuple[str, str, str]]:
        def send() -> tuple[str, str, str]:
            job = _shown(service)
            try:
                if job is None:
                    raise UnZipLoRAError("There is no run.")
                service.jobs.send(job.id, word)
            except UnZipLoRAError as error:
                return render.message(str(error), error=True), *look()
            return render.message(_ANSWERS[word]), *look()

        return send

    outputs = [said, live, waiting]
    when(go.click, start, [picture, subject, style, name, preset, *fields.values()], outputs)
    for word, button in buttons.items():
        when(button.click, command(word), None, outputs)
    when(poll.click, look, None, [live, waiting])
    if tools.suggest is not None:
        suggest = gr.Button("Suggest style words", size="sm", elem_id="uz_suggest")
        when(suggest.click, tools.suggest, [picture], [style])


_ANSWERS = {
    "preview now": "Previews are made after this step.",
    "save now": "The state and a snapshot are saved after this step.",
    "pause": "The model is given back after this step; Resume goes on.",
    "resume": "The run goes on when its turn comes.",
    "stop and save": "The two files are written after this step.",
    "stop": "The run stops after this step; its state is kept.",
}


def _advanced() -> dict[str, Any]:
    """Settings' fields and their inputs; 0 and empty mean: the method's or the model's own."""
    with gr.Accordion("Advanced", open=False, elem_id="uz_advanced"):
        with gr.Row():
            token = gr.Textbox("sks", label="Token", info="a rare word that becomes its name")
            method = gr.Dropdown(
                list(METHODS), value="unziplora", label="Method", info="others to compare with"
            )
            memory = gr.Dropdown(
                ["auto", "full", "checkpoint"],
                value="auto",
                label="Memory",
                info="checkpoint: slower and smaller",
            )
        with gr.Row():
            steps = gr.Number(0, label="Steps", precision=0, info="0: 600, or the model's own")
            rank = gr.Number(0, label="Rank", precision=0, info="0: 64, or the model's own")
            resolution = gr.Number(0, label="Resolution", precision=0, info="0: the model's own")
            lr = gr.Number(0, label="Learning rate", info="0: 5e-5, or the model's own")
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0)
            every = gr.Number(
                100, label="Previews every", precision=0, info="steps; 0: only when asked"
            )
            overwrite = gr.Checkbox(False, label="Replace files and run of the same name")
    return {
        "token": token,
        "method": method,
        "memory": memory,
        "steps": steps,
        "rank": rank,
        "resolution": resolution,
        "lr": lr,
        "seed": seed,
        "preview_every": every,
        "overwrite": overwrite,
    }


def _given(
    subject: str, style: str, name: str, preset: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings: the preset's, and over them what was typed."""
    typed = {
        key: value
        for key, value in fields.items()
        if value not in (None, "", 0) or key in ("seed", "preview_every")
    }
    if typed.get("memory") == "auto":
        del typed["memory"]
    words = {"subject": subject or "", "style": style or ""}
    named = {"name": name.strip()} if name and name.strip() else {}
    return {**PRESETS.get(preset, {}), **typed, **words, **named}


def _results(service: Service, tools: Tools) -> None:
    cards = gr.HTML(elem_id="uz_cards")
    with gr.Row():
        names = gr.Dropdown([], label="Pair", elem_id="uz_pair", allow_custom_value=False)
        content = gr.Slider(0, 1.5, value=1, step=0.05, label="Content weight")
        style = gr.Slider(0, 1.5, value=1, step=0.05, label="Style weight")
    prompt = gr.Textbox(label="Prompt", elem_id="uz_prompt", interactive=True)
    with gr.Row():
        refresh = gr.Button("Refresh", elem_id="uz_refresh", size="sm")
        use = gr.Button("Into the txt2img prompt", elem_id="uz_use", size="sm")
        resume = gr.Dropdown([], label="Runs that can go on", elem_id="uz_resumable")
        again = gr.Button("Resume", elem_id="uz_resume_run", size="sm")
        share = gr.Button("Folder for a hub", elem_id="uz_publish", size="sm")
        delete = gr.Button("Delete the pair", elem_id="uz_delete", size="sm", variant="stop")
    said = gr.HTML(elem_id="uz_results_said")

    def look(chosen: str | None) -> tuple[Any, Any, Any, str]:
        found = service.pairs()
        known = [pair.name for pair in found]
        value = chosen if chosen in known else (known[0] if known else None)
        return (
            render.pairs(found),
            gr.update(choices=known, value=value),
            gr.update(choices=service.resumable()),
            write(value, 1.0, 1.0),
        )

    def write(name: str | None, content: float, style: float) -> str:
        pair = next((pair for pair in service.pairs() if pair.name == name), None)
        return render.tags(pair, content, style) if pair is not None else ""

    def remove(name: str | None) -> tuple[Any, ...]:
        try:
            removed = service.delete(name or "")
        except UnZipLoRAError as error:
            return render.message(str(error), error=True), *look(name)
        return render.message(f"Deleted: {', '.join(removed)}"), *look(None)

    def publish(name: str | None) -> str:
        try:
            made = service.publish(name or "")
        except UnZipLoRAError as error:
            return render.message(str(error), error=True)
        return render.message(f"Made: {made.name}, with both files, pictures and a model card.")

    def go_on(name: str | None) -> str:
        try:
            job = service.resume(name or "")
        except UnZipLoRAError as error:
            return render.message(str(error), error=True)
        return render.message(f"{job.name} goes on; see the Train tab.")

    shown = [cards, names, resume, prompt]
    when(refresh.click, look, [names], shown)
    when(delete.click, remove, [names], [said, *shown])
    when(again.click, go_on, [resume], [said])
    when(share.click, publish, [names], [said])
    for source in (names, content, style):
        when(source.change, write, [names, content, style], [prompt])
    if tools.to_prompt is not None:
        when(use.click, None, [prompt], None, js=tools.to_prompt)
    else:
        use.visible = False


def _combine(service: Service) -> None:
    """Content of one pair with the style of another: looked at first, then merged if wanted."""
    with gr.Row():
        content = gr.Dropdown([], label="Content of", elem_id="uz_content_of")
        style = gr.Dropdown([], label="Style of", elem_id="uz_style_of")
        content_weight = gr.Slider(0, 1.5, value=1, step=0.05, label="Content weight")
        style_weight = gr.Slider(0, 1.5, value=1, step=0.05, label="Style weight")
    with gr.Row():
        refresh = gr.Button("Refresh", elem_id="uz_combine_refresh", size="sm")
        look = gr.Button("Look at the two", elem_id="uz_sheet", size="sm")
        name = gr.Textbox(label="Name of the merged file", elem_id="uz_merged_name")
        merge = gr.Button("Merge into one file", elem_id="uz_merge", size="sm")
    said = gr.HTML(elem_id="uz_combine_said")
    columns = gr.HTML(elem_id="uz_overlap")
    figure = gr.Image(label="Sheet", elem_id="uz_figure", interactive=False)

    def names() -> tuple[Any, Any]:
        known = [pair.name for pair in service.pairs()]
        return gr.update(choices=known), gr.update(choices=known)

    def compare(one: str | None, other: str | None) -> str:
        if not one or not other:
            return ""
        try:
            shares = overlap(service.pair(one).content, service.pair(other).style)
        except UnZipLoRAError as error:
            return render.message(str(error), error=True)
        return render.overlap(shares, overlap_warning(shares))

    def draw(one: str | None, other: str | None, weight: float) -> tuple[str, Any]:
        try:
            return "", service.sheet(one or "", other or "", weight)
        except UnZipLoRAError as error:
            return render.message(str(error), error=True), None

    def join(one: str | None, other: str | None, first: float, second: float, name: str) -> str:
        try:
            parts = [(service.pair(one or "").content, first),
                     (service.pair(other or "").style, second)]  # fmt: skip
            made = service.merge(name.strip(), parts)
        except UnZipLoRAError as error:
            return render.message(str(error), error=True)
        return render.message(f"Made: {made.name}, to be used with weight 1.")

    when(refresh.click, names, None, [content, style])
    for source in (content, style):
        when(source.change, compare, [content, style], [columns])
    when(look.click, draw, [content, style, content_weight], [said, figure])
    inputs = [content, style, content_weight, style_weight, name]
    when(merge.click, join, inputs, [said])


def _inspect() -> None:
    file = gr.File(label="Any LoRA file", file_types=[".safetensors"], elem_id="uz_file")
    report = gr.Textbox(label="What it is", lines=18, elem_id="uz_report", interactive=False)

    def look(given: Any) -> str:
        if given is None:
            return ""
        path = Path(getattr(given, "name", given))  # gradio 3 gives a file object, 4 a path
        try:
            return inspect_lora(path).as_text()
        except UnZipLoRAError as error:
            return str(error)

    when(file.change, look, [file], [report])


def _shown(service: Service) -> Job | None:
    """The run that goes on, else the next one, else the last one that ended."""
    jobs = service.jobs.all()
    for wanted in (("running",), ("paused",), ("waiting",)):
        for job in jobs:
            if job.state in wanted:
                return job
    ended = [job for job in jobs if job.state in ENDED]
    return ended[-1] if ended else None


def _png(image: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
