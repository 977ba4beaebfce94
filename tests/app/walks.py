"""The places of a route where a value can be: its address, and each field of its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote


def split_names(path: str) -> list[str]:
    """The parts of a route's path: "/file=", "{path_or_url:path}"."""
    parts = path.replace("{", "\0{").replace("}", "}\0").split("\0")
    return [part for part in parts if part]


def requests_with(path: str, way: dict[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    """Addresses and bodies with the value in one place of a route at a time."""
    if "requestBody" in way:
        schema = way["requestBody"]["content"]["application/json"]["schema"]
        for field in schema["properties"]:
            good = {name: "x" for name in schema["required"] if name != field}
            yield path.replace("{job_id}", "x"), {**good, field: value}
    elif isinstance(value, str):
        filled = "".join(quote(value, safe="") if "{" in p else p for p in split_names(path))
        yield filled, None
