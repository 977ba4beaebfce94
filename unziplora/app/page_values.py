"""What a browser may send for the page's fields, checked before gradio sees it.

gradio takes {"path": ...} in any field for a file, and copies, downloads or opens what it names. So
each field has a kind: text takes text only, and files are those that were uploaded to this process.
What is refused is never repeated: it may be what a path led to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from unziplora.app.uploads import is_upload
from unziplora.errors import InvalidInput

Kind = Literal["text", "number", "flag", "file", "plain", "none"]

MOST_CONTAINERS = 20_000  # lists and objects in a body: each takes a hundred times its two bytes
DEEPEST = 12  # of values in each other

_KINDS: Mapping[str, Kind] = {
    "Textbox": "text", "Radio": "text", "HTML": "text", "Markdown": "text", "Button": "text",
    "Number": "number", "Slider": "number", "Checkbox": "flag", "State": "none",
    "Image": "file", "ImageEditor": "file", "File": "file", "UploadButton": "file",
    "Gallery": "file",
}  # fmt: skip
# gradio 4 and later, and gradio 3: what makes an object one that names a file
_FILE_KEYS = frozenset({"path", "meta", "url", "is_file", "name", "data", "orig_name", "is_stream"})
WRONG_VALUE = "A field of the page has a value that it cannot have. Reload the page, and try again."


class PageValues:
    """The kinds of all fields that a page's functions read, by the function's number."""

    def __init__(self, blocks: Any) -> None:
        """blocks: a gr.Blocks of gradio 3, 4, 5 or 6, with all of its events set up."""
        self._kinds = _kinds_of(blocks)
        self._sends_outputs = not isinstance(blocks.fns, Mapping)  # gradio 3
        # in bytes; gradio 3 sends images inside, in base64
        self.largest_call = 1_000_000 if isinstance(blocks.fns, Mapping) else 64_000_000

    def check(self, body: bytes) -> None:
        """Of a call of a page's function. Raises InvalidInput for what no page of ours sends."""
        call = parse(body)
        if not isinstance(call, dict) or call.get("batched") or call.get("simple_format"):
            raise InvalidInput(WRONG_VALUE)
        for kind, value in self._fields(call.get("fn_index"), call.get("data")):
            check_value(kind, value)
        for key, value in call.items():
            if key != "data":  # an upload's event names its file once more
                _walk(value, _own_upload if key == "event_data" else _no_file)

    def _fields(self, number: Any, data: Any) -> list[tuple[Kind, Any]]:
        """Each field that a function reads, with its kind. Raises InvalidInput."""
        kinds = self._kinds.get(number) if type(number) is int else None
        if kinds is None or not isinstance(data, list) or len(data) < len(kinds):
            raise InvalidInput(WRONG_VALUE)
        # gradio 3's pages send the values of outputs after those of inputs; it does not read them
        if len(data) > len(kinds) and not self._sends_outputs:
            raise InvalidInput(WRONG_VALUE)
        return list(zip(kinds, data, strict=False))


def parse(body: bytes) -> Any:
    """JSON, unless it would take much more memory than its text. Raises InvalidInput."""
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise InvalidInput("The JSON has too many lists or objects. Send fewer.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("This is not JSON. Send a JSON object.") from error


def check_value(kind: Kind, value: Any) -> None:
    """Raises InvalidInput, without saying what the value is."""
    if value is None or kind == "none":
        _walk(value, _no_file)
        return
    fits = {
        "text": isinstance(value, str),
        "number": type(value) in (int, float) or (isinstance(value, str) and len(value) < 100),
        "flag": isinstance(value, bool),
        "file": not isinstance(value, str) or _is_data_url(value),  # which gradio 3 sends
    }
    if not fits.get(kind, True):
        raise InvalidInput(WRONG_VALUE)
    _walk(value, _own_upload if kind == "file" else _no_file)


def only_text(value: Any) -> str | None:
    """The value of a field of text, as a component's `preprocess`. Raises InvalidInput for anything
    else, which gradio would turn into text."""
    check_value("text", value)
    return value  # type: ignore[no-any-return]


def _kinds_of(blocks: Any) -> dict[int, Sequence[Kind]]:
    functions = blocks.fns
    if isinstance(functions, Mapping):
        return {number: [_kind(field) for field in fn.inputs] for number, fn in functions.items()}
    # gradio 3: the fields are named by number, apart from the functions (gradio/blocks.py)
    return {
        number: [_kind(blocks.blocks[field]) for field in dependency["inputs"]]
        for number, dependency in enumerate(blocks.dependencies)
    }


def _kind(field: Any) -> Kind:
    name = type(field).__name__
    if name == "Dropdown":
        return "plain" if getattr(field, "multiselect", False) else "text"
    return _KINDS.get(name, "plain")


def _walk(value: Any, file: Callable[[dict[str, Any]], None], depth: int = 0) -> None:
    """Calls `file` with each object that may name one. Raises InvalidInput where values lie in each
    other deeper than any of ours."""
    if depth > DEEPEST:
        raise InvalidInput(WRONG_VALUE)
    if isinstance(value, dict):
        if not _FILE_KEYS.isdisjoint(value):
            file(value)
        for inner in value.values():
            _walk(inner, file, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, file, depth + 1)


def _no_file(value: dict[str, Any]) -> None:
    raise InvalidInput(WRONG_VALUE)


def _own_upload(value: dict[str, Any]) -> None:
    """Of gradio 4 and later: {"path", "url", "meta", ...}; of 3: {"name", "data", "is_file"}, whose
    data are a data URL where it is no file. Objects without either may only hold such ones."""
    path = value.get("path") if "path" in value else value.get("name")
    if path is None:
        if {"path", "name", "url", "data", "is_file"}.isdisjoint(value):
            return
        raise InvalidInput(WRONG_VALUE)
    if "path" not in value and not value.get("is_file"):
        if _is_data_url(value.get("data")):
            return
        raise InvalidInput(WRONG_VALUE)
    if not isinstance(path, str) or not is_upload(path) or not _is_own_url(value.get("url"), path):
        raise InvalidInput(WRONG_VALUE)


def _is_data_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("data:")


def _is_own_url(url: Any, path: str) -> bool:
    """gradio's page names the same file once more, by the address that it is served at."""
    if url is None:
        return True
    if not isinstance(url, str):
        return False
    served = unquote(urlsplit(url).path).replace("\\", "/")
    return served.endswith("/file=" + path.replace("\\", "/"))
