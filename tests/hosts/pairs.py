"""Pairs that a WebUI trained, and what it draws with them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from safetensors.torch import load_file

from tests.hosts.programs import WebUI

PROMPT = "a sks cat in crayon drawing style"


def first_sampler(webui: WebUI) -> str:
    """The one that a WebUI takes where none is chosen."""
    return str(webui.get("/sdapi/v1/samplers")[0]["name"])


def state(webui: WebUI) -> dict[str, Any]:
    drawn = webui.draw("a house").tobytes()
    return {
        "weights": webui.get("/test/weights"),
        "traits": webui.get("/test/traits"),
        "other": webui.get("/test/other"),
        "drawn": drawn,
    }


def tensors(webui: WebUI, name: str) -> dict[str, Any]:
    return {
        f"{role}.{key}": tensor
        for role in ("content", "style")
        for key, tensor in load_file(webui.loras / f"{name}_{role}.safetensors").items()
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def notes(run: Any) -> str:
    return " ".join(e["text"] for e in run["events"] if e["type"] == "Message")


def in_background(call: Any, *arguments: Any) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return future
