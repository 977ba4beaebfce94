"""The Combine tab: content of one pair with the style of another, looked at before it is merged."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.lora.merge import GroupColumns, columns, overlap_warning
from unziplora.ui import run_html as render
from unziplora.ui.answers import told
from unziplora.ui.charts import bar
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.results_tab import action, drawer, sheet_image, weights

_LEAD = "The content of one pair with the style of another."


def build(service: Service, tab: Any) -> None:
    """Inside a TabItem, at whose selection the lists are read anew."""
    plain_html(f'<p class="uz-lead">{_LEAD}</p>')
    with gr.Row():
        content = gr.Dropdown([], label="Content of", elem_id="uz_content_of")
        style = gr.Dropdown([], label="Style of", elem_id="uz_style_of")
    with gr.Row():
        content_weight, style_weight = weights("uz_combine")
    overlap = plain_html(elem_id="uz_overlap")
    name = gr.Textbox(
        label="Name of the merged file", info="empty: made of the two names", max_lines=1,
        elem_id="uz_merged_name",
    )  # fmt: skip
    with gr.Row():
        look = action("Draw a sheet of the two", "uz_combine_draw", service.draw is not None)
        merge = action("Merge into one file", "uz_merge")
    said = plain_html(elem_id="uz_combine_said")
    sheet = sheet_image("uz_combine_sheet")

    def names(*chosen: str | None) -> tuple[Any, Any]:
        known = [pair.name for pair in service.pairs()]
        return tuple(  # type: ignore[return-value]
            gr.update(choices=known, value=one if one in known else None) for one in chosen
        )

    def compare(one: str | None, other: str | None) -> str:
        found: list[str] = []

        def read() -> str:
            if one and other:
                found.append(column_map(columns(service.pair(one).content,
                                                service.pair(other).style)))  # fmt: skip
            return ""

        answer = told(read)
        return found[0] if found else answer

    def join(one: str | None, other: str | None, first: float, second: float, name: str) -> str:
        def write() -> str:
            if not one or not other:
                raise InvalidInput("Two pairs are needed. Choose whose content and whose style.")
            chosen = (name or "").strip() or f"{one}-content-{other}-style"
            parts = [(service.pair(one).content, first), (service.pair(other).style, second)]
            made = service.merge(chosen, parts)
            return f"Made {made.name}, to be used as <lora:{made.stem}:1>."

        return told(write)

    pair = [content, style]
    when(tab.select, names, pair, pair)
    for source in pair:
        when(source.change, compare, pair, [overlap], show_progress="minimal")
        # What was said of other pairs is old. Not at `change`, which also comes when the lists are
        # read anew, and in the browser: an answer of the server might wipe away a newer one.
        when(source.input, None, None, [said], js="() => ''")
    drawing = [*pair, content_weight, style_weight]
    when(look.click, drawer(service), drawing, [said, sheet], show_progress="full")
    when(merge.click, join, [*drawing, name], [said], show_progress="minimal")


def column_map(groups: Mapping[str, GroupColumns]) -> str:
    """By attention group, which of its columns each file has open, as HTML."""
    if not groups:
        return render.message("The two share no attention group.")
    rows = "".join(_row(group, counts) for group, counts in groups.items())
    warning = overlap_warning(groups)
    return (
        (render.message(warning, error=True) if warning else "")
        + '<div class="uz-title">Open columns <span class="uz-key uz-content">content only</span>'
        '<span class="uz-key uz-both">both</span><span class="uz-key uz-style">style only</span>'
        '</div><table class="uz-table"><thead><tr><th>group</th><th></th><th>overlap</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _row(group: str, counts: GroupColumns) -> str:
    parts = {
        "content": counts.first - counts.both,
        "both": counts.both,
        "style": counts.second - counts.both,
    }
    shares = [(kind, count / counts.total) for kind, count in parts.items()]
    spoken = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
    return (
        f"<tr><th>{escape(group)}</th><td>{bar(shares, spoken)}</td>"
        f'<td class="uz-number">{counts.overlap:.0%}</td></tr>'
    )
