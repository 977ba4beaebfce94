"""What goes through gradio's queue, some of whose answers are lost (ui/gradio_compat.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the app's page needs gradio")

import gradio as gr

from unziplora.app.server import make_app
from unziplora.ui.gradio_compat import when

pytestmark = pytest.mark.slow  # gradio is imported


def test_only_what_takes_minutes_waits_in_the_queue(host: Any, tmp_path: Path) -> None:
    app = make_app(lambda: host, tmp_path)
    page = next(r.app for r in app.routes if hasattr(getattr(r, "app", None), "get_blocks"))
    functions = [one for one in page.get_blocks().fns.values() if one.fn is not None]
    queued = [one for one in functions if one.queue]
    assert 0 < len(queued) < len(functions)
    assert {one.fn.__name__ for one in queued} == {"_draw", "_draw_grid", "choose"}
    assert all(one.show_progress != "hidden" for one in queued)


def test_an_event_that_a_webui_has_wrapped_is_set_up_like_any_other() -> None:
    """As Forge does (its modules/gradio_extensions.py:119): the wrapper takes anything."""
    with gr.Blocks() as page:
        button = gr.Button()

        def wrapped(*arguments: Any, **options: Any) -> Any:
            return button.click(*arguments, **options)

        when(wrapped, lambda: None, None, None)
    (function,) = page.fns.values()
    assert function.show_progress == "hidden"
    assert not function.queue
