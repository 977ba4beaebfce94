"""Serves the page as a WebUI does: rendered inside a tab of a larger page (A1111
modules/ui.py:1147), with a WebUI's tools. Run by the tests, in the environment under test."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from unziplora.app.service import Service
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.ui.gradio_compat import blocks
from unziplora.ui.page import HostFeatures, build

IMAGE = """() => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64});
    canvas.getContext('2d').fillRect(0, 0, 30, 30);
    return canvas.toDataURL('image/png');
}"""


def suggest(image: Image.Image) -> str:
    return f"{image.width} pixels"


def outer(service: Service) -> Any:
    features = HostFeatures(
        suggest=suggest,
        to_prompt="(text) => { window.sent = text; return []; }",
        images={"From txt2img": IMAGE},
    )
    inner = build(service, features)
    with blocks() as page, gr.Tabs(elem_id="tabs"), gr.TabItem("UnZipLoRA"):
        inner.render()
    return page


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    host = StandaloneHost.open(given.model)
    page = outer(Service(lambda: host, lambda: given.out))
    page.queue()  # as both WebUIs do
    page.launch(server_name="127.0.0.1", server_port=given.port, quiet=True)


if __name__ == "__main__":
    main()
