"""The page: Train, Results, Combine, Inspect. It holds nothing: all of it is read from the service
at every look, so that it may be reloaded, closed or opened twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.service import Service
from unziplora.ui import combine_tab, inspect_tab, results_tab, train_tab
from unziplora.ui.gradio_compat import blocks, hidden, plain_html, when
from unziplora.ui.host_features import HostFeatures
from unziplora.ui.requests import Requests

__all__ = ["HostFeatures", "build"]

_HERE = Path(__file__).parent


def build(service: Service, features: HostFeatures | None = None) -> Any:
    """The page's gr.Blocks, to be served alone or rendered inside a WebUI's tab."""
    features = features or HostFeatures()
    with blocks(title="UnZipLoRA") as page:
        # in the page itself: a WebUI would load a file of its own, the app would not
        plain_html(f"<style>{(_HERE / 'style.css').read_text('utf-8')}</style>", elem_id="uz_css")
        # outside the tabs: gradio 6 draws a tab only once it is opened
        with hidden():
            requests = Requests()
            poll = gr.Button(elem_id="uz_poll")
        with gr.Tabs(elem_id="uz_tabs"):
            with gr.TabItem("Train", elem_id="uz_tab_train"):
                start_from = train_tab.build(service, features, requests, poll)
            with gr.TabItem("Results", elem_id="uz_tab_results") as results:
                results_tab.build(service, features, requests, results, start_from)
            with gr.TabItem("Combine", elem_id="uz_tab_combine") as combine:
                combine_tab.build(service, features, requests, combine)
            with gr.TabItem("Inspect", elem_id="uz_tab_inspect"):
                inspect_tab.build()
        when(page.load, None, None, None, js=(_HERE / "page.js").read_text("utf-8"))
    return page
