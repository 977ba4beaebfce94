"""Two past runs side by side: their last previews, their curves, and the settings in which they
differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.training.run_folder import RunInfo
from unziplora.ui.answers import attempt
from unziplora.ui.charts import chart
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.html import image, number
from unziplora.ui.requests import Requests
from unziplora.ui.run_html import SMOOTHED_STEPS, smoothed

_NONE = "none"
# name, settings, rows of progress.csv, and the last previews by what they show
Run = tuple[str, RunInfo, list[dict[str, float]], Mapping[str, Path]]
_SHOWN = ("content", "style", "both")


def build(service: Service, requests: Requests, tab: Any) -> None:
    """An accordion on the Results tab, at whose selection the lists are read again."""
    with gr.Accordion("Compare two runs", open=False, elem_id="uz_compare"):
        with gr.Row():
            fields = [
                gr.Dropdown([_NONE], value=_NONE, label=label, elem_id=f"uz_compare_{n}")
                for n, label in enumerate(("First run", "Second run"))
            ]
        shown = plain_html(elem_id="uz_compared")

    def names(*chosen: str | None) -> list[Any]:
        known = [_NONE, *service.past_runs()]
        return [gr.update(choices=known, value=one if one in known else _NONE) for one in chosen]

    def compare(*chosen: str | None) -> str:
        wanted = [one for one in chosen if one and one != _NONE]
        runs, problem = attempt(lambda: [_run(service, name) for name in wanted])
        return problem if runs is None else side_by_side(runs)

    for event in requests.at_sight("results", tab):
        when(event, names, fields, fields)
    for field in fields:
        when(field.change, compare, fields, [shown])


def _run(service: Service, name: str) -> Run:
    previews = service.preview_steps(name)
    return (name, *service.past_run(name), previews[max(previews)] if previews else {})


def side_by_side(runs: Sequence[Run]) -> str:
    """As HTML: each run's last previews, its curves, on one scale, and its settings; of two runs,
    those in which they differ, and the others folded away."""
    if not runs:
        return ""
    steps = max((int(row["step"]) for _, _, rows, _ in runs for row in rows), default=1)
    losses = [smoothed([row.get("loss", 0.0) for row in rows]) for _, _, rows, _ in runs]
    top = 1.05 * max((value for loss in losses for value in loss), default=1.0)
    columns = "".join(
        _curves(run, loss, steps, top) for run, loss in zip(runs, losses, strict=True)
    )
    settings = _settings([(name, _values(info)) for name, info, _, _ in runs])
    return f'<div class="uz-curves">{columns}</div>{settings}'


def _curves(run: Run, loss: Sequence[float], last: int, top: float) -> str:
    name, _, rows, previews = run
    done = [int(row["step"]) for row in rows]
    open_columns = {
        role: [100 * row.get(f"open_{role}", 0.0) for row in rows] for role in ("content", "style")
    }
    return (
        f'<div><div class="uz-title">{escape(name)}</div>{_images(name, previews)}'
        + chart("loss", {"loss": loss}, done, last, f"mean of {SMOOTHED_STEPS} steps", top=top)
        + chart("trained columns (%)", open_columns if rows else {}, done, last, "", top=100)
        + "</div>"
    )


def _images(name: str, previews: Mapping[str, Path]) -> str:
    if not previews:
        return ""
    figures = "".join(
        f"<figure>{image(previews.get(what), f'{what} of {name}')}"
        f"<figcaption>{what}</figcaption></figure>"
        for what in _SHOWN
    )
    return f'<div class="uz-two uz-three">{figures}</div>'


def _values(info: RunInfo) -> dict[str, Any]:
    first = info.started_from.name if info.started_from else None
    return {"model": info.model.name, **asdict(info.settings), "started_from": first}


def _settings(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    names = list(dict.fromkeys(name for _, values in runs for name in values if name != "name"))
    differ = [name for name in names if len({str(values.get(name)) for _, values in runs}) > 1]
    same = [name for name in names if name not in differ]
    if len(runs) == 1:
        return _table(runs, same)
    first = _table(runs, differ) if differ else '<p class="uz-aside">All settings are the same.</p>'
    return (
        f"{first}<details><summary>{len(same)} settings that are the same</summary>"
        f"{_table(runs, same)}</details>"
    )


def _table(runs: Sequence[tuple[str, Mapping[str, Any]]], names: Sequence[str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th>"
        + "".join(f"<td>{_text(values.get(name))}</td>" for _, values in runs)
        + "</tr>"
        for name in names
    )
    heads = "".join(f"<th>{escape(name)}</th>" for name, _ in runs)
    return (
        f'<table class="uz-table uz-facts"><thead><tr><th>setting</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(number(value) if isinstance(value, (int, float)) else str(value))
