"""Two past runs side by side: their curves, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.training.run_folder import RunInfo
from unziplora.ui.answers import attempt
from unziplora.ui.charts import chart
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.html import number
from unziplora.ui.run_html import SMOOTHED_STEPS, smoothed

_NONE = "none"
Run = tuple[str, RunInfo, list[dict[str, float]]]  # name, settings, rows of progress.csv


def build(service: Service, tab: Any) -> None:
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
        runs, problem = attempt(lambda: [(name, *service.past_run(name)) for name in wanted])
        return problem if runs is None else side_by_side(runs)

    when(tab.select, names, fields, fields)
    for field in fields:
        when(field.change, compare, fields, [shown])


def side_by_side(runs: Sequence[Run]) -> str:
    """As HTML: the curves of each run, on one scale, and a table of settings; of two runs, those in
    which they differ come first and are marked."""
    if not runs:
        return ""
    steps = max((int(row["step"]) for _, _, rows in runs for row in rows), default=1)
    losses = [smoothed([row.get("loss", 0.0) for row in rows]) for _, _, rows in runs]
    top = 1.05 * max((value for loss in losses for value in loss), default=1.0)
    columns = "".join(
        _curves(run, loss, steps, top) for run, loss in zip(runs, losses, strict=True)
    )
    return f'<div class="uz-curves">{columns}</div>{_table([(n, _values(i)) for n, i, _ in runs])}'


def _curves(run: Run, loss: Sequence[float], last: int, top: float) -> str:
    name, _, rows = run
    done = [int(row["step"]) for row in rows]
    open_columns = {
        role: [100 * row.get(f"open_{role}", 0.0) for row in rows] for role in ("content", "style")
    }
    return (
        f'<div><div class="uz-title">{escape(name)}</div>'
        + chart("loss", {"loss": loss}, done, last, f"mean of {SMOOTHED_STEPS} steps", top=top)
        + chart("trained columns (%)", open_columns if rows else {}, done, last, "", top=100)
        + "</div>"
    )


def _values(info: RunInfo) -> dict[str, Any]:
    first = info.started_from.name if info.started_from else None
    return {"model": info.model.name, **asdict(info.settings), "started_from": first}


def _table(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    names = list(dict.fromkeys(name for _, values in runs for name in values if name != "name"))
    differs = {name: len({str(values.get(name)) for _, values in runs}) > 1 for name in names}
    rows = "".join(
        f"<tr{' class=uz-differs' if differs[name] else ''}><th>{escape(name.replace('_', ' '))}"
        "</th>" + "".join(f"<td>{_text(values.get(name))}</td>" for _, values in runs) + "</tr>"
        for name in sorted(names, key=lambda name: not differs[name])
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
