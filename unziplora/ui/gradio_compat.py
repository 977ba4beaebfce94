"""What differs between gradio 3.41 (A1111), 4.40 (Forge) and 6 (the app)."""

from __future__ import annotations

import base64
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from unziplora.app.own_files import is_own_file
from unziplora.app.page_values import WRONG_VALUE, only_text
from unziplora.errors import InvalidInput


def when(
    event: Callable[..., Any],
    *arguments: Any,
    js: str | None = None,
    takes_minutes: bool = False,
    **options: Any,
) -> Any:
    """Sets up an event; `js` is called `_js` in gradio 3, and in Forge's 4 by its own shim.

    The name of a function in the API's listing is left out: the page is no API. Its fields of text
    take text only, where gradio would make text of anything.

    Only what takes minutes goes through gradio's queue, because browsers and proxies give up
    waiting for a plain request. From 4 on the queue's answers come in a stream that closes with the
    last one; what is asked while it closes is answered into the closed stream, and the page sees
    nothing until it asks again (one in 150 to 200 on a busy computer, with 4.40 and 6.31).
    """
    for field in _inputs_of(arguments):
        if isinstance(field, gr.Textbox):
            field.preprocess = _text
    known = _options_of(event)
    if js is not None:
        options["js" if "js" in known else "_js"] = js
    if "show_progress" in known:
        options.setdefault("show_progress", "hidden")
    if "queue" in known and not takes_minutes:
        options["queue"] = False
    if "api_visibility" in known:  # gradio 6
        options.setdefault("api_visibility", "private")
    elif "api_name" in known:
        options.setdefault("api_name", False)
    return event(*arguments, **options)


def _options_of(event: Callable[..., Any]) -> set[str]:
    """The names of an event's options. Forge and Neo wrap events into functions that take anything
    and pass it on (modules/gradio_extensions.py:119, 173)."""
    parameters = inspect.signature(event).parameters
    names = set(parameters)
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()) and not _IS_3:
        names.update(inspect.signature(gr.Button.click).parameters)
    return names


def _inputs_of(arguments: tuple[Any, ...]) -> list[Any]:
    """Of an event's function: what follows it, one field or several."""
    inputs = arguments[1] if len(arguments) > 1 else None
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _text(value: Any) -> str | None:
    try:
        return only_text(value)
    except InvalidInput as error:
        raise gr.Error(str(error)) from error


def fitting(component: Callable[..., Any], **options: Any) -> Any:
    """A component with those of the options that this gradio knows."""
    # Forge wraps the constructors of its components (modules/gradio_extensions.py:136); signature
    # looks through that
    known = inspect.signature(component).parameters
    return component(**{name: value for name, value in options.items() if name in known})


MOST_CALLS = 64  # that wait for each of the page's functions
# by version, since reForge hides the parameters of Image (its modules/gradio_extensons.py:128)
_IS_3 = gr.__version__.startswith("3.")
_SOURCES: dict[str, Any] = {"source": "upload"} if _IS_3 else {"sources": ["upload", "clipboard"]}


def image_input(**options: Any) -> Any:
    """A gr.Image whose value reaches its function as the bytes that were uploaded, or None.

    gradio's own reading drops what is transparent, and answers a damaged file with the one word
    "Error" before any function of ours is called.
    """
    image = gr.Image(**_SOURCES, **options)
    image.preprocess = _uploaded
    return image


def file_input(**options: Any) -> Any:
    """A gr.File that gives files which were uploaded. gradio 3's own reading copies any file of the
    machine that a browser names (gradio/components/file.py)."""
    field = gr.File(**options)
    read = field.preprocess

    def checked(value: Any) -> Any:
        files = value if isinstance(value, list) else [value]
        if not all(map(_is_upload, files)):
            raise gr.Error(WRONG_VALUE)
        return read(value)

    field.preprocess = checked
    return field


def _is_upload(value: Any) -> bool:
    """Whether a field's value in gradio 3 holds its data itself, or names a file that a browser
    uploaded; gradio 4 and later, which give an object, have checked that themselves."""
    if not isinstance(value, dict) or not value.get("is_file"):
        return True
    # as gradio/routes.py of 3.41.2
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")
    return isinstance(value.get("name"), str) and any(
        is_own_file(place, Path(value["name"])) for place in (folder, folder.resolve())
    )


def _uploaded(upload: Any) -> bytes | None:
    if upload is None:
        return None
    if isinstance(upload, str):  # gradio 3 sends "data:image/png;base64,..."
        return base64.b64decode(upload.rpartition("base64,")[2])
    path = Path(upload.path)
    return path.read_bytes() if path.is_file() else None  # never a device, nor a FIFO


def copyable_text(**options: Any) -> Any:
    """A gr.Textbox with a button that copies it."""
    return fitting(gr.Textbox, show_copy_button=True, buttons=["copy"], **options)


def plain_html(value: str = "", **options: Any) -> Any:
    """A gr.HTML without padding of its own, and without a gap where it is empty (style.css)."""
    return gr.HTML(value, elem_classes=["uz-html"], **options)


def hidden() -> Any:
    """Holds what page.js uses and nobody sees. Not `visible=False`: gradio would leave it out of
    the page, and around a hidden field of text it draws an empty form."""
    return gr.Column(elem_classes=["uz-hidden"])


def blocks(**options: Any) -> Any:
    """A gr.Blocks that fetches no fonts from Google, as the themes of gradio 3 to 5 do."""
    if "theme" in inspect.signature(gr.Blocks).parameters:
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        options["theme"] = theme
    return gr.Blocks(analytics_enabled=False, **options)


def is_logged_in(app: Any, request: Any) -> bool:
    """Whether a request has the cookie of a login to the page that is mounted on `app`."""
    pages = (getattr(route, "app", None) for route in app.routes)
    tokens = next(page.tokens for page in pages if page is not None and hasattr(page, "tokens"))
    return any(cookie in tokens for cookie in request.cookies.values())


def mount(app: Any, page: Any, login: str | None) -> Any:
    """The page at the root of a FastAPI application, behind "user:password" where one is given."""
    if not _IS_3:  # whose calls wait in no queue
        page.queue(max_size=MOST_CALLS)
    known = inspect.signature(gr.mount_gradio_app).parameters
    # of a file: the largest LoRAs that people inspect
    wanted: dict[str, Any] = {"footer_links": [], "max_file_size": "4gb"}
    options: dict[str, Any] = {name: value for name, value in wanted.items() if name in known}
    if login is not None:
        if "app_kwargs" in known:
            options["app_kwargs"] = {"openapi_url": None}  # gradio's listing of routes is open
        user = tuple(login.split(":", 1))
        if "auth" in known:
            options["auth"] = user
        else:  # gradio 3 reads it off the page (gradio/routes.py, App.configure_app)
            page.auth, page.auth_message = [user], None
    return gr.mount_gradio_app(app, page, path="/", **options)
