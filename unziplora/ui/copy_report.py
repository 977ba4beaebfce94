"""The button that gives a report to paste where help is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from unziplora.ui.answers import attempt
from unziplora.ui.gradio_compat import copyable_text, plain_html, when
from unziplora.ui.html import message

# A browser lets a page use the clipboard only on this machine and over https. An empty list: gradio
# 3 goes through whatever is returned as a list of outputs.
_COPY = """(text) => {
  if (text) navigator.clipboard?.writeText(text).catch(() => {});
  return [];
}"""
_COPIED = (
    "Copied, if your browser lets pages copy. It has no paths, no words of yours and no names."
)


def build(make: Callable[[], str]) -> None:
    """Inside a tab. make: gives the report."""
    ask = gr.Button("Copy report", size="sm", elem_id="uz_copy_report")
    answer = plain_html(elem_id="uz_report_message")
    text = copyable_text(
        label="Report", lines=8, max_lines=8, visible=False, interactive=False,
        elem_id="uz_bug_report",
    )  # fmt: skip

    def show() -> tuple[str, Any]:
        report, problem = attempt(make)
        shown = gr.update(value=report or "", visible=report is not None)
        return problem or message(_COPIED), shown

    after = when(ask.click, show, None, [answer, text])
    if hasattr(after, "then"):
        when(after.then, None, [text], None, js=_COPY)
