"""The button that gives a report to paste where help is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from unziplora.ui.answers import told
from unziplora.ui.gradio_compat import copyable_text, plain_html, when

# A browser lets a page use the clipboard only on this machine and over https.
_COPY = """(text) => {
  if (text) navigator.clipboard?.writeText(text).catch(() => {});
  return text;
}"""


def build(make: Callable[[], str]) -> None:
    """Inside a tab. make: gives the report."""
    ask = gr.Button("Copy report", size="sm", elem_id="uz_copy_report")
    said = plain_html(elem_id="uz_report_said")
    text = copyable_text(
        label="Report", lines=8, max_lines=8, visible=False, interactive=False,
        elem_id="uz_bug_report",
    )  # fmt: skip

    def show() -> tuple[str, Any]:
        found: list[str] = []

        def write() -> str:
            found.append(make())
            return "Copied, if your browser lets pages copy. It names no path, word or person."

        answer = told(write)
        return answer, gr.update(value=found[0] if found else "", visible=bool(found))

    after = when(ask.click, show, None, [said, text])
    if hasattr(after, "then"):
        when(after.then, None, [text], None, js=_COPY)
