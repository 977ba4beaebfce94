"""What goes through gradio's queue, some of whose answers are lost (ui/gradio_compat.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the app's page needs gradio")

from unziplora.app.server import make_app

pytestmark = pytest.mark.slow  # gradio is imported


def test_only_functions_that_show_their_progress_wait_in_the_queue(
    host: Any, tmp_path: Path
) -> None:
    app = make_app(lambda: host, tmp_path)
    page = next(r.app for r in app.routes if hasattr(getattr(r, "app", None), "get_blocks"))
    functions = [one for one in page.get_blocks().fns.values() if one.fn is not None]
    queued = [one for one in functions if one.queue]
    assert 0 < len(queued) < len(functions)
    assert all(one.show_progress != "hidden" for one in queued)
    assert all(one.show_progress == "hidden" for one in functions if not one.queue)
