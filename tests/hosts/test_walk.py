"""The walk of tests/app/test_walk.py in the real WebUIs: a file that is nobody's business, named in
every field of the tab and of the API. Python's audit events of the WebUI's own process say what was
opened and connected to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.app.walks import requests_with
from tests.hosts.programs import API, WebUI
from tests.samples import by_turns

MARK = "MARK-that-nobody-may-see"
META = {"_type": "gradio.FileData"}
ADDRESS = ("127.0.0.1", 9)  # nobody answers there
# gradio 4.40 fetches the address in a FileData of any field of any tab before a function of ours is
# called (gradio/processing_utils.py, async_move_files_to_cache)
FETCHED_BY_GRADIO = dict.fromkeys(("forge", "neo", "ersatz"), (f"socket.connect {ADDRESS}",))


@dataclass(frozen=True)
class Bait:
    """targets: what must stay shut, as paths and addresses; values: ways to name them."""

    targets: dict[str, str]

    @property
    def values(self) -> dict[str, Any]:
        secret = self.targets["a file"]
        return {
            **{f"FileData, {name}": {"path": path, "meta": META}
               for name, path in self.targets.items()},
            **{f"gradio 3, {name}": {"name": path, "is_file": True, "data": None}
               for name, path in self.targets.items()},
            "with url": {"path": secret, "url": f"/file={secret}", "meta": META},
            "only by url": {"url": self.targets["an address"], "meta": META},
            "in a list": [{"path": secret, "meta": META}],
            "in an object": {"background": {"path": secret, "meta": META}, "layers": []},
            **self.targets,
        }  # fmt: skip


@pytest.fixture(scope="module")
def bait(webui: WebUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    folder = tmp_path_factory.mktemp("elsewhere")
    secret = folder / "secret.safetensors"
    arguments = json.dumps({"pair": "x", "trigger": MARK, "method": "unziplora"})
    save_file({"x": torch.zeros(1)}, secret, {"ss_network_args": arguments, "title": MARK})
    os.mkfifo(folder / "fifo")
    links = [webui.loras / "link_content.safetensors", webui.loras / "link_style.safetensors"]
    for link in links:
        link.symlink_to(secret)
    # The WebUI reads the header of each new file in its Lora folder once, for its own list, links
    # or not: before it is listened to (Forge's sd_forge_lora/network.py:31, modules/cache.py:114).
    webui.post("/sdapi/v1/refresh-loras")
    yield Bait({
        "a file": str(secret),
        "a system file": "/etc/hostname",
        "a device": "/dev/zero",
        "a FIFO": str(folder / "fifo"),
        "a link among the pairs": str(links[0]),
        "a way up": str(webui.loras / ".." / ".." / ".." / "secret"),
        "a folder": str(folder),
        "an address": f"http://{ADDRESS[0]}:{ADDRESS[1]}/secret.png",
        "a file's address": f"file://{secret}",
    })  # fmt: skip
    for link in links:
        link.unlink()


def functions(webui: WebUI) -> list[tuple[int, list[Any]]]:
    """The numbers of the tab's functions in Python, with what stands in their fields: those that
    read or write something whose elem_id is ours."""
    config = webui.get("/config")
    parts = {part["id"]: part for part in config["components"]}

    def ours(numbers: list[Any]) -> bool:
        return any(str(parts[n]["props"].get("elem_id") or "").startswith("uz_") for n in numbers)

    found = []
    for place, function in enumerate(config["dependencies"]):
        inputs, outputs = function["inputs"], function["outputs"]
        if function["backend_fn"] and ours([*inputs, *outputs]):
            values = [parts[number]["props"].get("value") for number in inputs]
            found.append((function.get("id", place), values))
    return found


def check(webui: WebUI, connections: Sequence[str] = ()) -> None:
    heard = webui.get("/test/heard")
    assert heard["all"] > 0, "nothing was listened to"
    assert not [what for what in heard["opened"] if "elsewhere" in what or "/etc/hostname" in what]
    assert heard["opened"] == []
    assert set(heard["connected"]) <= set(connections)


def test_no_file_is_opened_for_a_value_in_any_field_of_the_tab(webui: WebUI, bait: Bait) -> None:
    calls = functions(webui)
    assert sum(len(values) for _, values in calls) > 40
    webui.post("/test/listen")
    seen = 0
    for number, values in calls:
        for place in range(len(values)):
            for name, value in by_turns(bait.values.items(), seen, 2):
                sent = [*values[:place], value, *values[place + 1 :]]
                body = {"fn_index": number, "data": sent, "session_hash": "walk"}
                answer = webui.client.post("/run/predict", json=body)
                assert MARK not in answer.text, (number, place, name)
            seen += 1
    check(webui, FETCHED_BY_GRADIO.get(webui.kind, ()))


def test_no_route_of_ours_opens_what_a_body_or_an_address_names(webui: WebUI, bait: Bait) -> None:
    paths = webui.get("/openapi.json")["paths"]
    ours = {path: ways for path, ways in paths.items() if path.startswith(API)}
    assert len(ours) > 15
    webui.post("/test/listen")
    for place, (path, ways) in enumerate(ours.items()):
        for method, way in ways.items():
            for name, value in by_turns(bait.values.items(), place, 6):
                for address, body in requests_with(path, way, value):
                    answer = webui.client.request(method, address, json=body)
                    assert MARK not in answer.text, (method, address, name)
                    assert answer.status_code < 500, (method, address, name, answer.text)
    check(webui)
