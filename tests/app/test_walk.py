"""Every route and every function of the page, with a file that is nobody's business in every field.

The files are named by paths, by gradio's own objects, by addresses, by links and by a FIFO: some of
these ways in each field, by turns, and all of them with UNZIPLORA_LONG_TESTS=1. Nothing outside the
output folder, the upload folder and Python's own files is opened, nothing is connected to, and no
answer holds what they hold. (safetensors opens files without Python's knowledge: what it would read
is shown by the mark in the answers, and a FIFO by the walk that would never end.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("gradio", reason="the app's page needs gradio")

from fastapi.testclient import TestClient

from benchmarks.reliability.audit_events import (
    audited,
    connected,
    opened_outside,
    pythons_own,
)
from tests.app.walks import requests_with, split_names
from tests.conftest import ROOT
from tests.samples import by_turns
from unziplora.app.http_api import PREFIX
from unziplora.app.server import make_app
from unziplora.app.uploads import upload_folder

pytestmark = pytest.mark.slow
MARK = "MARK-that-nobody-may-see"
META = {"_type": "gradio.FileData"}


@dataclass(frozen=True)
class Walked:
    """client: of the app; page: its gr.Blocks; out: its output folder; targets: what must stay
    shut, by name, as paths and addresses."""

    client: TestClient
    page: Any
    out: Path
    targets: dict[str, str]

    @property
    def values(self) -> dict[str, Any]:
        """Ways to name the targets in a field."""
        found: dict[str, Any] = {
            f"{name}, FileData": {"path": path, "meta": META} for name, path in self.targets.items()
        }
        secret = self.targets["a file"]
        return found | {
            "with url": {"path": secret, "url": f"/file={secret}", "meta": META},
            "without meta": {"path": secret},
            "as gradio 3 names it": {"name": secret, "is_file": True, "data": None},
            "in a list": [{"path": secret, "meta": META}],
            "in an object": {"background": {"path": secret, "meta": META}, "layers": []},
            "as a stream": {"path": secret, "is_stream": True, "meta": META},
            "only by url": {"url": self.targets["an address"], "meta": META},
        }


@pytest.fixture(scope="module")
def walked(
    make_host: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walked]:
    host = make_host()
    tmp_path = tmp_path_factory.mktemp("walked")
    out = tmp_path / "out"
    out.mkdir()
    secret = tmp_path / "elsewhere" / "secret.safetensors"
    secret.parent.mkdir()
    arguments = json.dumps({"pair": "x", "trigger": MARK, "method": "unziplora"})
    save_file({"x": torch.zeros(1)}, secret, {"ss_network_args": arguments, "title": MARK})
    app = make_app(lambda: host, out)
    links = [out / "link_content.safetensors", out / "link_style.safetensors",
             out / ".unziplora" / "linked", upload_folder() / "link.png"]  # fmt: skip
    (out / ".unziplora").mkdir()
    for link in links:
        link.unlink(missing_ok=True)
        link.symlink_to(secret.parent if link.name == "linked" else secret)
    os.mkfifo(tmp_path / "elsewhere" / "fifo")
    targets = {
        "a file": str(secret),
        "a system file": "/etc/hostname",
        "the process": "/proc/self/cmdline",
        "a device": "/dev/zero",
        "a FIFO": str(tmp_path / "elsewhere" / "fifo"),
        "a link": str(links[-1]),
        "a link among the pairs": str(links[0]),
        "a way up": str(upload_folder() / ".." / "secret"),
        "a folder": str(secret.parent),
        "an address": "http://127.0.0.1:9/secret.png",
        "a file's address": f"file://{secret}",
    }
    page = next(r.app for r in app.routes if hasattr(getattr(r, "app", None), "get_blocks"))
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield Walked(client, page.get_blocks(), out, targets)
    for link in links:
        link.unlink()


def functions(page: Any) -> list[tuple[int, list[Any]]]:
    """The numbers of the page's functions in Python, with what stands in their fields."""
    found = []
    for number, function in page.fns.items():
        if function.fn is not None:
            values = [None if type(field).__name__ == "State" else getattr(field, "value", None)
                      for field in function.inputs]  # fmt: skip
            found.append((number, values))
    return found


def call(walked: Walked, number: int, data: list[Any]) -> Any:
    body = {"fn_index": number, "data": data, "session_hash": "walk"}
    return walked.client.post("/gradio_api/run/predict", json=body)


def test_no_file_is_opened_for_a_value_in_any_field_of_the_page(walked: Walked) -> None:
    calls = functions(walked.page)
    assert sum(len(values) for _, values in calls) > 40
    seen = 0
    with audited() as heard:
        for number, values in calls:
            for place in range(len(values)):
                for name, value in by_turns(walked.values.items(), seen, 3):
                    sent = [*values[:place], value, *values[place + 1 :]]
                    answer = call(walked, number, sent)
                    assert answer.status_code == 422, (number, place, name, answer.text[:300])
                    assert MARK not in answer.text
                    assert "elsewhere" not in answer.text, (number, place, name)
                seen += 1
    check(walked, heard)


def test_no_file_is_opened_for_a_path_typed_into_the_pages_text(walked: Walked) -> None:
    with audited() as heard:
        for place, (number, values) in enumerate(functions(walked.page)):
            fields = walked.page.fns[number].inputs
            for path in by_turns(walked.targets.values(), place, 4):
                sent = [path if type(field).__name__ in ("Textbox", "Dropdown") else value
                        for field, value in zip(fields, values, strict=True)]  # fmt: skip
                answer = call(walked, number, sent)
                assert answer.status_code in (200, 422, 500), answer.text[:300]
                assert MARK not in answer.text
    check(walked, heard)


def test_the_queue_refuses_what_a_direct_call_refuses(walked: Walked) -> None:
    with audited() as heard:
        for place, (number, values) in enumerate(functions(walked.page)):
            if not values:
                continue
            for value in by_turns(walked.values.values(), place, 3):
                body = {"fn_index": number, "data": [value, *values[1:]], "session_hash": "walk"}
                answer = walked.client.post("/gradio_api/queue/join", json=body)
                assert answer.status_code == 422, answer.text[:300]
    check(walked, heard)


def test_no_route_of_gradio_gives_a_file_away_or_fetches_an_address(walked: Walked) -> None:
    routes = gradio_routes(walked)
    assert len(routes) > 60
    with audited() as heard:
        for place, (method, path) in enumerate(routes):
            count = len(walked.targets) if "{path" in path else 3
            for target in by_turns(walked.targets.values(), place, count):
                at = quote(target, safe="")
                filled = "".join(at if "{" in part else part for part in split_names(path))
                for address in (filled, f"/gradio_api{filled}"):
                    if "heartbeat" in address or "queue/data" in address:
                        continue  # answers for as long as somebody listens
                    answer = walked.client.request(method, address, json={"data": [target]})
                    assert MARK not in answer.text, (method, address)
                    if "{" in path:
                        assert answer.status_code >= 400, (method, address, answer.status_code)
    check(walked, heard)


def test_no_route_of_ours_opens_what_a_body_or_an_address_names(walked: Walked) -> None:
    paths = walked.client.get("/openapi.json").json()["paths"]
    ours = {path: ways for path, ways in paths.items() if path.startswith(PREFIX)}
    assert len(ours) > 15
    values = {**walked.targets, **walked.values}
    with audited() as heard:
        for place, (path, ways) in enumerate(ours.items()):
            for method, way in ways.items():
                for name, value in by_turns(values.items(), place, 6):
                    for address, body in requests_with(path, way, value):
                        answer = walked.client.request(method, address, json=body)
                        assert MARK not in answer.text, (method, address, name)
                        assert answer.status_code < 500, (method, address, name, answer.text)
                        if body is not None or "{" in path:
                            assert answer.status_code >= 400, (method, address, name)
    check(walked, heard)


def test_what_the_page_itself_sends_is_let_through(walked: Walked) -> None:
    """The values of its fields as the browser is told them, and an upload in those of files."""
    uploaded = walked.client.post("/gradio_api/upload", files={"files": ("a.png", b"no image")})
    (path,) = uploaded.json()
    file = {"path": path, "url": f"http://127.0.0.1:7860/gradio_api/file={path}", "meta": META}
    config = walked.client.get("/config").json()
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    kinds = {part["id"]: part["type"] for part in config["components"]}
    called = 0
    for function in config["dependencies"]:
        if not function["backend_fn"]:
            continue
        data = [file if kinds[i] in ("image", "file") else values[i] for i in function["inputs"]]
        body = {"data": data, "event_data": file, "fn_index": function["id"], "trigger_id": 1,
                "session_hash": "walk"}  # fmt: skip
        answer = walked.client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code != 422, (function["id"], answer.text[:300])
        called += 1
    assert called > 20


def test_gradios_own_check_of_paths_is_on_as_well(walked: Walked) -> None:
    assert walked.page.has_launched


def check(walked: Walked, heard: list[tuple[str, str]]) -> None:
    own = [walked.out, upload_folder(), ROOT / "unziplora"]
    assert opened_outside(heard, [*own, *pythons_own()]) == []
    assert connected(heard) == []


def gradio_routes(walked: Walked) -> list[tuple[str, str]]:
    found = set()
    mounted = next(r.app for r in walked.client.app.routes  # type: ignore[attr-defined]
                   if hasattr(getattr(r, "app", None), "get_blocks"))  # fmt: skip
    for route in mounted.routes:
        for inner in getattr(getattr(route, "original_router", route), "routes", [route]):
            path = getattr(inner, "path", "").removeprefix("/gradio_api")
            found |= {(method, path) for method in getattr(inner, "methods", None) or ()}
    return sorted(found)
