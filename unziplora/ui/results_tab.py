"""The Results tab: what was trained, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui import pair_html as cards
from unziplora.ui import run_html as render
from unziplora.ui.answers import told
from unziplora.ui.gradio_compat import copyable_text, hidden, plain_html, when
from unziplora.ui.host_features import HostFeatures

_MOST_WEIGHT = 1.5


def build(service: Service, features: HostFeatures, tab: Any) -> None:
    """Inside a TabItem, at whose selection the list is read anew."""
    shown = plain_html(elem_id="uz_cards")
    said = plain_html(elem_id="uz_results_said")
    with gr.Column(visible=False, elem_id="uz_chosen") as chosen:
        with gr.Row():
            names = gr.Dropdown([], label="Pair", elem_id="uz_pair")
            use = gr.Radio(list(cards.USES), value="both", label="Use", elem_id="uz_use")
        with gr.Row():
            content, style = weights("uz")
        prompt = copyable_text(
            label="Prompt", info="calls the LoRAs with their trigger words", lines=2,
            elem_id="uz_prompt", interactive=True,
        )  # fmt: skip
        with gr.Row():
            send = action("Into the txt2img prompt", "uz_to_prompt", features.to_prompt is not None)
            draw = action("Draw a sheet", "uz_draw", service.draw is not None)
            share = action("Make a folder to publish", "uz_publish")
            remove = action("Delete this pair", "uz_delete")
        sheet = sheet_image("uz_sheet")
    doomed = gr.State(("", ""))
    with gr.Row(visible=False, elem_id="uz_confirm") as confirm:
        question = plain_html()
        yes = gr.Button("Delete for good", variant="stop", size="sm", elem_id="uz_delete_yes")
        no = gr.Button("Keep", size="sm", elem_id="uz_delete_no")
    unfinished = plain_html(elem_id="uz_unfinished")
    refresh = gr.Button("Refresh", size="sm", elem_id="uz_refresh")
    with hidden():
        asked = gr.Textbox()
        ask, ask_use = gr.Button(elem_id="uz_ask_results"), gr.Button(elem_id="uz_ask_use")

    listed = [shown, chosen, names, unfinished]
    asking = [doomed, confirm, question]

    def look(name: str | None) -> tuple[Any, ...]:
        found = service.pairs()
        known = [pair.name for pair in found]
        value = name if name in known else next(iter(known), None)
        images = {run: service.run_folder(run).image for run in service.resumable()}
        return (
            cards.pairs(found),
            gr.update(visible=bool(known)),
            gr.update(choices=known, value=value),
            cards.runs(images),
        )

    def write(name: str | None, use: str, content: float, style: float) -> str:
        if not name:
            return ""
        try:
            return cards.prompt(service.pair(name), use, content, style)
        except InvalidInput:
            return ""

    def chose(asked: str) -> tuple[Any, Any, str]:
        picked: list[str] = []

        def choose() -> str:
            row = _row(asked)
            pair = service.pair(str(row.get("name")))
            if row.get("use") not in cards.USES:
                raise InvalidInput("The page asked for something unknown. Reload it.")
            picked.extend((pair.name, row["use"]))
            return f"The prompt for {row['use']} of {pair.name} is below."

        answer = told(choose)
        if not picked:
            return gr.update(), gr.update(), answer
        return gr.update(value=picked[0]), gr.update(value=picked[1]), answer

    def act(asked: str, name: str | None) -> tuple[Any, ...]:
        row: dict[str, Any] = {}

        def go_on() -> str:
            row.update(_row(asked))
            if row.get("do") == "delete":
                return ""
            return f"{service.resume(str(row.get('name'))).name} goes on: see the Train tab."

        answer = told(go_on)
        if row.get("do") == "delete":
            return ("", *_ask("run", str(row.get("name"))), *look(name))
        return (answer, *_ask("", ""), *look(name))

    def delete(doomed: tuple[str, str], name: str | None) -> tuple[Any, ...]:
        def remove() -> str:
            kind, which = doomed
            if kind == "run":
                service.delete_run(which)
                return f"The run {which} is deleted."
            return f"Deleted: {', '.join(service.delete(which))}."

        answer = told(remove)
        return (answer, *_ask("", ""), *look(name))

    def publish(name: str | None) -> str:
        return told(
            lambda: (
                f"{service.publish(name or '').name} is in the output folder: both files, "
                "images, a model card and a text for Civitai."
            )
        )

    js = "(asked, ...rest) => [window.unziplora.asked, ...rest.slice(0, 1)]"
    picked_js = "() => [window.unziplora.asked]"
    prompting = [names, use, content, style]
    looked = [
        when(tab.select, look, [names], listed),
        when(refresh.click, look, [names], listed),
        when(ask.click, act, [asked, names], [said, *asking, *listed], js=js),
        when(yes.click, delete, [doomed, names], [said, *asking, *listed]),
    ]
    for event in looked:
        when(event.then, write, prompting, [prompt])
    picked = when(ask_use.click, chose, [asked], [names, use, said], js=picked_js)
    written = when(picked.then, write, prompting, [prompt])
    if features.to_prompt is not None:
        when(written.then, None, [prompt], None, js=features.to_prompt)
        when(send.click, None, [prompt], None, js=features.to_prompt)
    for source in prompting:
        when(source.change, write, prompting, [prompt])
    when(share.click, publish, [names], [said])
    when(remove.click, lambda name: _ask("pair", name or ""), [names], asking)
    when(no.click, lambda: _ask("", ""), None, asking)
    drawing = drawer(service)
    when(
        draw.click, lambda name, *weights: drawing(name, name, *weights),
        [names, content, style], [said, sheet], show_progress="full",
    )  # fmt: skip


def weights(prefix: str) -> tuple[Any, Any]:
    """Two sliders."""
    return tuple(
        gr.Slider(
            0, _MOST_WEIGHT, value=1, step=0.05, label=f"{role.capitalize()} weight",
            elem_id=f"{prefix}_{role}_weight",
        )
        for role in ("content", "style")
    )  # type: ignore[return-value]  # fmt: skip


def drawer(service: Service) -> Callable[..., tuple[str, Any]]:
    """Draws the sheet of two pairs, with what is said of it."""

    def draw(one: str | None, other: str | None, *weights: float) -> tuple[str, Any]:
        made: list[Any] = []

        def make() -> str:
            made.append(service.sheet(one or "", other or "", (weights[0], weights[1])))
            return "Content in new scenes, the style on other things, and both."

        answer = told(make)
        return answer, gr.update(value=made[0], visible=True) if made else gr.update()

    return draw


def sheet_image(elem_id: str) -> Any:
    """Where a sheet is shown, without gradio's label, which would cover its heading."""
    return gr.Image(
        label="Sheet", show_label=False, visible=False, interactive=False, elem_id=elem_id
    )


def action(label: str, elem_id: str, visible: bool = True) -> Any:
    """A small button, one of a row."""
    return gr.Button(label, size="sm", elem_id=elem_id, visible=visible, min_width=120)


def _ask(kind: str, name: str) -> tuple[Any, Any, str]:
    """The question before something is deleted, or none."""
    what = {
        "pair": f"Delete the two files of {name} and what lies beside them?",
        "run": f"Delete the run {name}, with its saved state? It cannot go on then.",
    }.get(kind, "")
    return (kind, name), gr.update(visible=bool(kind and name)), render.message(what)


def _row(asked: str) -> dict[str, Any]:
    """What a button inside HTML asked for. Raises InvalidInput."""
    try:
        row = json.loads(asked)
    except (ValueError, TypeError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise InvalidInput("The page asked for something unknown. Reload it.")
    return row
