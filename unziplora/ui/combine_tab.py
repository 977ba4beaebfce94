"""The Combine tab: content of one pair with the style of another, looked at before it is merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.lora.overlap import GroupColumns, columns, overlap_warning
from unziplora.ui.answers import attempt, message_from
from unziplora.ui.block_names import plain_names
from unziplora.ui.charts import bar
from unziplora.ui.gradio_compat import plain_html, when
from unziplora.ui.html import group_name, message
from unziplora.ui.sheet_part import action, draw_sheet, sheet_image, weight_sliders

_LEAD = "The content of one pair with the style of another."


def build(service: Service, tab: Any) -> None:
    """Inside a TabItem, at whose selection the lists are read again."""
    plain_html(f'<p class="uz-lead">{_LEAD}</p>')
    with gr.Row():
        content = gr.Dropdown([], label="Content of", elem_id="uz_content_of")
        style = gr.Dropdown([], label="Style of", elem_id="uz_style_of")
    with gr.Row():
        content_weight, style_weight = weight_sliders("uz_combine")
    overlap = plain_html(elem_id="uz_overlap")
    name = gr.Textbox(
        label="File name (optional)", info="of the merged file", max_lines=1,
        placeholder="from the names of both", elem_id="uz_merged_name",
    )  # fmt: skip
    with gr.Row():
        look = action("Draw sheet", "uz_combine_draw", service.draw is not None)
        merge = action("Merge into one file", "uz_merge")
    answer = plain_html(elem_id="uz_combine_message")
    sheet = sheet_image("uz_combine_sheet")

    def names(*chosen: str | None) -> list[Any]:
        known = [pair.name for pair in service.pairs()]
        return [
            gr.update(choices=known, value=one if one in known else None) for one in chosen
        ]  # fmt: skip

    def compare(one: str | None, other: str | None) -> str:
        shown, problem = attempt(lambda: _overlap(service, one, other))
        return shown or problem

    def join(*values: Any) -> str:
        return message_from(lambda: _merge(service, *values))

    def draw(*values: Any) -> tuple[str, Any]:
        return draw_sheet(service, *values)

    pair = [content, style]
    when(tab.select, names, pair, pair)
    for source in pair:
        when(source.change, compare, pair, [overlap], show_progress="minimal")
        # A message about other pairs is old. Not at `change`, which also comes when the lists are
        # read again, and in the browser: an answer of the server might wipe away a newer one.
        when(source.input, None, None, [answer], js="() => ''")
    drawing = [*pair, content_weight, style_weight]
    when(look.click, draw, drawing, [answer, sheet], show_progress="full")
    when(merge.click, join, [*drawing, name], [answer], show_progress="minimal")


def _overlap(service: Service, content_of: str | None, style_of: str | None) -> str:
    if not content_of or not style_of:
        return ""
    files: tuple[Path, Path] = service.pair(content_of).content, service.pair(style_of).style
    return column_map(columns(*files))


def _merge(
    service: Service, content_of: str | None, style_of: str | None,
    content: float, style: float, name: str,
) -> str:  # fmt: skip
    if not content_of or not style_of:
        raise InvalidInput("Two pairs are needed. Choose whose content and whose style.")
    chosen = (name or "").strip() or f"{content_of}-content-{style_of}-style"
    parts = [(service.pair(content_of).content, content), (service.pair(style_of).style, style)]
    merged = service.merge(chosen, parts)
    return f"Merged into {merged.name}. Use it as <lora:{merged.stem}:1>."


def column_map(groups: Mapping[str, GroupColumns]) -> str:
    """By attention group, which of its columns each file has trained, as HTML."""
    if not groups:
        return message("The two share no attention group.")
    names = plain_names(list(groups))
    rows = "".join(_row(group, names[group], counts) for group, counts in groups.items())
    warning = overlap_warning(groups)
    return (
        (message(warning, error=True) if warning else "")
        + '<div class="uz-title">Trained columns '
        + '<span class="uz-key uz-content">content only</span>'
        + '<span class="uz-key uz-both">both</span>'
        + '<span class="uz-key uz-style">style only</span></div>'
        + '<table class="uz-table"><thead><tr><th>block</th><th></th><th>overlap</th></tr>'
        + f"</thead><tbody>{rows}</tbody></table>"
    )


def _row(group: str, name: str, counts: GroupColumns) -> str:
    parts = {
        "content": counts.first - counts.both,
        "both": counts.both,
        "style": counts.second - counts.both,
    }
    shares = [(kind, count / counts.total) for kind, count in parts.items()]
    spoken = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
    return (
        f"<tr><th>{group_name(name, group)}</th><td>{bar(shares, spoken)}</td>"
        f'<td class="uz-number">{counts.overlap:.0%}</td></tr>'
    )
