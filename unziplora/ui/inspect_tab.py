"""The Inspect tab: what any LoRA file is."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.lora.inspect import GroupReport, Report, inspect
from unziplora.ui.answers import told
from unziplora.ui.charts import bar
from unziplora.ui.gradio_compat import plain_html, when

_LEAD = "Any LoRA file, of this program or another: what it holds, and how much of each block."


def build() -> None:
    """Inside a TabItem."""
    plain_html(f'<p class="uz-lead">{_LEAD}</p>')
    file = gr.File(label="LoRA file (.safetensors)", elem_id="uz_file", height=160)
    shown = plain_html(elem_id="uz_report")
    when(file.change, look, [file], [shown], show_progress="minimal")


def look(given: Any) -> str:
    """The report as HTML. given: of gradio 3 a file object, of 4 a path, or None."""
    if given is None:
        return ""
    found: list[str] = []

    def read() -> str:
        found.append(report(inspect(Path(getattr(given, "name", given)))))
        return ""

    answer = told(read)
    return found[0] if found else answer


def report(of: Report) -> str:
    """Facts in a table; a bar for each attention group."""
    ranks = ", ".join(f"{rank} ({count} layers)" for rank, count in of.ranks.items())
    facts = {
        "format": of.kind,
        "model": of.architecture,
        "layers": f"{of.layers}, {of.parameters / 1e6:.1f} M parameters",
        "rank": ranks or "none",
        **of.header,
    }
    if of.hash_matches is not None:
        facts["hash"] = "matches" if of.hash_matches else "does not match: the file was changed"
    if of.others:
        facts["also"] = ", ".join(f"{count} {what}" for what, count in of.others.items())
    if of.not_finite:
        facts["not finite"] = f"{len(of.not_finite)} layers, the first {of.not_finite[0]}"
    rows = "".join(
        f"<tr><th>{escape(what)}</th><td>{escape(said)}</td></tr>" for what, said in facts.items()
    )
    return (
        f'<div class="uz-title">{escape(of.name)}</div><div class="uz-report">'
        f'<table class="uz-table uz-facts"><tbody>{rows}</tbody></table>{_groups(of)}</div>'
    )


def _groups(of: Report) -> str:
    if not of.groups:
        return ""
    largest = max(group.norm for group in of.groups) or 1.0
    rows = "".join(_row(group, largest) for group in of.groups)
    return (
        '<table class="uz-table"><thead><tr><th>group</th><th>open columns</th><th></th>'
        f"<th>norm</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(group: GroupReport, largest: float) -> str:
    opened = bar([("open", group.open_columns)], f"open columns {group.open_columns:.0%}")
    norm = bar([("norm", group.norm / largest)], f"norm {group.norm:.3g}")
    return (
        f"<tr><th>{escape(group.group)}</th>"
        f'<td>{opened}</td><td class="uz-number">{group.open_columns:.0%}</td>'
        f'<td>{norm}</td><td class="uz-number">{group.norm:.2g}</td></tr>'
    )
