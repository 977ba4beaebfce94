"""Serves the page as a WebUI does: rendered inside a tab of a larger page (A1111
modules/ui.py:1147), with a WebUI's tools. Run by the tests, in the environment under test."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.service import Service
from unziplora.ui.compat import blocks
from unziplora.ui.page import Tools, build

PICTURE = """() => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64});
    canvas.getContext('2d').fillRect(0, 0, 30, 30);
    return canvas.toDataURL('image/png');
}"""


def suggest(picture: Image.Image) -> str:
    return f"{picture.width} pixels"


def outer(service: Service) -> Any:
    tools = Tools(
        suggest=suggest,
        to_prompt="(text) => { window.sent = text; return []; }",
        pictures={"From txt2img": PICTURE},
    )
    inner = build(service, tools)
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
