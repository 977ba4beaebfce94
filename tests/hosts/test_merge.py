"""A merge that learns on the checkpoint of a real WebUI (ZipLoRA); programs.py says where they are
looked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.hosts.pairs import PROMPT
from tests.hosts.programs import API, WebUI
from unziplora.lora.read import read_lora


def test_mergers_are_learned_and_images_change_by_the_file_and_nothing_else(
    webui: WebUI, first_pair: Any, untouched: None
) -> None:
    parts = [{"pair": "first", "role": role} for role in ("content", "style")]
    asked = {"name": "zipped", "parts": parts, "how": "zip"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(webui.post, f"{API}/merge", asked)
        webui.wait(lambda: (webui.get(f"{API}/merge") or {}).get("step", 0) >= 2 or answer.done())
        webui.draw("a house")  # goes first, between two steps
        webui.post(f"{API}/merge/commands", {"command": "stop"})
        assert answer.result() == {"file": "zipped.safetensors"}
    merge = webui.get(f"{API}/merge")
    assert merge["state"] == "stopped", merge
    assert 2 <= merge["step"] < merge["steps"]
    assert len(read_lora(webui.loras / "zipped.safetensors").adapters) == 560
    assert "zipped" in {lora["name"] for lora in webui.get("/sdapi/v1/loras")}
    plain = webui.draw(PROMPT).tobytes()
    both = webui.draw(f"{PROMPT} <lora:first_content:1> <lora:first_style:1>").tobytes()
    assert len({plain, both, webui.draw(f"{PROMPT} <lora:zipped:1>").tobytes()}) == 3


def test_a_file_merged_again_under_its_name_is_drawn_as_it_is_now(
    webui: WebUI, first_pair: Any
) -> None:
    def drawn(weight: float) -> bytes:
        parts = [
            {"pair": "first", "role": "content", "weight": weight},
            {"pair": "first", "role": "style", "weight": 1.0},
        ]
        for file in webui.loras.glob("again*"):
            file.unlink()
        webui.post(f"{API}/merge", {"name": "again", "parts": parts, "how": "add"})
        return webui.draw(f"{PROMPT} <lora:again:1>").tobytes()

    first = drawn(1.0)
    assert drawn(-1.0) != first
    assert drawn(1.0) == first
