"""What goes through gradio's queue, some of whose answers are lost (ui/gradio_compat.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the app's page needs gradio")

from unziplora.app.server import make_app

pytestmark = pytest.mark.slow  # gradio is imported


def test_only_what_takes_minutes_waits_in_the_queue(host: Any, tmp_path: Path) -> None:
    app = make_app(lambda: host, tmp_path)
    page = next(r.app for r in app.routes if hasattr(getattr(r, "app", None), "get_blocks"))
    functions = [one for one in page.get_blocks().fns.values() if one.fn is not None]
    queued = [one for one in functions if one.queue]
    assert 0 < len(queued) < len(functions)
    assert {one.fn.__name__ for one in queued} == {"_draw", "_draw_grid", "choose"}
    assert all(one.show_progress != "hidden" for one in queued)
