"""What differs between gradio 3.41 (A1111), 4.40 (Forge) and 6 (the app)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def when(event: Callable[..., Any], *arguments: Any, js: str | None = None, **options: Any) -> Any:
    """Sets up an event; `js` is called `_js` in gradio 3, and in Forge's 4 by its own shim.

    The name of a function in the API's listing is left out: the page is no API.
    """
    known = inspect.signature(event).parameters
    if js is not None:
        options["js" if "js" in known else "_js"] = js
    if "show_progress" in known:
        options.setdefault("show_progress", "hidden")
    if "api_visibility" in known:  # gradio 6
        options.setdefault("api_visibility", "private")
    elif "api_name" in known:
        options.setdefault("api_name", False)
    return event(*arguments, **options)
