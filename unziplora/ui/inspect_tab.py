"""The Inspect tab: what any LoRA file is."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from unziplora.app.uploads import discard
from unziplora.lora.inspect import GroupReport, Report, inspect
from unziplora.ui.answers import attempt
from unziplora.ui.block_names import plain_names
from unziplora.ui.charts import bar
from unziplora.ui.gradio_compat import file_input, plain_html, when
from unziplora.ui.html import aside, group_name

_LEAD = "Any LoRA file, of this program or another: its contents, and how much is in each block."


def build() -> None:
    """Inside a TabItem."""
    plain_html(f'<p class="uz-lead">{_LEAD}</p>')
    file = file_input(label="LoRA file (.safetensors)", elem_id="uz_file", height=160)
    shown = plain_html(elem_id="uz_report")
    when(file.change, look, [file], [shown], show_progress="minimal")


def look(uploaded: Any) -> str:
    """The report as HTML. uploaded: of gradio 3 a file object, of 4 a path, or None."""
    if uploaded is None:
        return ""
    path = Path(getattr(uploaded, "name", uploaded))
    shown, problem = attempt(lambda: report(inspect(path)))
    discard(path)  # an upload of up to 4 GB
    return shown or problem


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
        f"<tr><th>{escape(what)}</th><td>{escape(text)}</td></tr>" for what, text in facts.items()
    )
    return (
        f'<div class="uz-title">{escape(of.name)}</div><div class="uz-report">'
        f'<table class="uz-table uz-facts"><tbody>{rows}</tbody></table><div>{_groups(of)}</div>'
        "</div>"
    )


def _groups(of: Report) -> str:
    if not of.groups:
        return ""
    largest = max(group.norm for group in of.groups) or 1.0
    names = plain_names([group.group for group in of.groups])
    rows = "".join(_row(group, names[group.group], largest) for group in of.groups)
    note = (
        "Trained columns: the share of the block's outputs that the LoRA changes. Norm: how much "
        "it changes them."
    )
    return (
        '<table class="uz-table"><thead><tr><th>block</th><th>trained columns (%)</th><th></th>'
        f"<th>norm</th><th></th></tr></thead><tbody>{rows}</tbody></table>{aside(note)}"
    )


def _row(group: GroupReport, name: str, largest: float) -> str:
    trained = bar([("open", group.open_columns)], f"trained columns {group.open_columns:.0%}")
    norm = bar([("norm", group.norm / largest)], f"norm {group.norm:.3g}")
    return (
        f"<tr><th>{group_name(name, group.group)}</th>"
        f'<td>{trained}</td><td class="uz-number">{group.open_columns:.0%}</td>'
        f'<td>{norm}</td><td class="uz-number">{group.norm:.2g}</td></tr>'
    )
