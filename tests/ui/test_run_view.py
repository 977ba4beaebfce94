"""What the Train tab answers to a press, and shows of the run then."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.waiting import until
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui.run_view import RunView

pytestmark = pytest.mark.slow
SETTINGS = {"subject": "tree", "style": "flat drawing", "rank": 2, "steps": 100_000,
            "preview_every": 0}  # fmt: skip


def test_of_a_run_that_has_begun_it_is_not_said_that_it_waits(
    documented: dict[str, Any], tmp_path: Path
) -> None:
    host = documented["MyHost"](documented["small_unet"]())
    service = Service(lambda: host, lambda: tmp_path / "loras")
    with gr.Blocks():
        view = RunView(service, in_webui=False)
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")

    def start(name: str, state: str) -> str:
        job = service.start(file.getvalue(), {**SETTINGS, "name": name})
        until(lambda: job.state == state)
        return f"{name} is in the queue."

    def refused() -> str:
        raise InvalidInput("The style is empty. Say it in two words.")

    try:
        said, marks, *_ = view.answered(None, lambda: start("one", "running"))
        assert said == ""
        said, *_ = view.answered(marks, lambda: start("two", "waiting"))
        assert "two is in the queue." in said
        said, *_ = view.answered(None, refused)  # of a page that does not know the run yet
        assert "The style is empty." in said
    finally:
        service.close()
