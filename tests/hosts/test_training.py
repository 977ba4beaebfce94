"""Training in the real WebUIs, through the API; programs.py says where they are looked for."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.hosts.pairs import PROMPT, first_sampler, notes, same, tensors
from tests.hosts.programs import API, WebUI

# what the descendants of Forge write to their console of a file that fits
MESSAGE_560 = {
    "forge": " for KModel-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
    "neo": " for KModel-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
    "ersatz": "\n    loaded 560 keys for UNet at weight 1.0 with on_the_fly=False\n",
    "reforge": " for SDXL with 560 keys (UNet: 560, CLIP: 0) at weight 1.0",
    "classic": " for SDXL-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
}


def test_all_560_layers_of_both_files_are_found(webui: WebUI, first_pair: Any) -> None:
    assert [e["layers"] for e in first_pair["events"] if e["type"] == "Started"] == [560]
    for name in ("first_content", "first_style"):
        if webui.kind == "a1111":
            assert webui.get("/test/matched", name=name)["layers"] == 560
        else:
            webui.draw(f"{PROMPT} <lora:{name}:1>")
            assert f"{name}.safetensors{MESSAGE_560[webui.kind]}" in webui.console()


def test_files_land_in_the_lora_folder_with_card_and_image(webui: WebUI, first_pair: Any) -> None:
    for role, trigger in (("content", "sks cat"), ("style", "crayon drawing style")):
        for ending in ("safetensors", "json"):
            assert (webui.loras / f"first_{role}.{ending}").is_file()
        card = json.loads((webui.loras / f"first_{role}.json").read_text("utf-8"))
        assert card["activation text"] == trigger
    names = {lora["name"] for lora in webui.get("/sdapi/v1/loras")}
    assert {"first_content", "first_style"} <= names  # without asking it to refresh


def test_the_pair_changes_images_alone_and_together_and_at_weight_0_nothing(
    webui: WebUI, first_pair: Any, untouched: None
) -> None:
    content, style = "<lora:first_content:1>", "<lora:first_style:1>"
    drawn = [webui.draw(f"{PROMPT} {loras}".strip()).tobytes()
             for loras in ("", content, style, content + style)]  # fmt: skip
    assert len(set(drawn)) == 4
    none = "<lora:first_content:0> <lora:first_style:0>"
    assert webui.draw(f"{PROMPT} {none}").tobytes() == drawn[0]


def test_training_leaves_no_trace(webui: WebUI, source_image: Path, untouched: None) -> None:
    packages = webui.get("/test/packages")
    webui.draw("the last prompt")
    file = webui.data / ("params-t2i.txt" if webui.kind == "ersatz" else "params.txt")
    last_prompt = file.read_text("utf-8")
    run = webui.train("traceless", source_image, preview_every=3, preview_steps=2)
    assert run["state"] == "completed", run
    assert len([e for e in run["events"] if e["type"] == "Previewed"]) == 2
    assert webui.get("/test/packages") == packages
    assert file.read_text("utf-8") == last_prompt
    assert last_prompt.startswith("the last prompt")


def test_a_lora_in_the_prompt_just_before_does_not_get_into_the_next_pair(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None
) -> None:
    webui.draw(f"{PROMPT} <lora:first_content:1> <lora:first_style:0.7>")
    run = webui.train("second", source_image, preview_every=3, preview_steps=2)
    assert run["state"] == "completed", run
    assert same(tensors(webui, "second"), tensors(webui, "first"))


def test_hypertile_that_an_image_left_on_is_off_for_a_run_and_then_on_again(
    webui: WebUI, source_image: Path, first_pair: Any
) -> None:
    if webui.kind != "a1111":
        pytest.skip("The others' Hypertile leaves nothing behind, or is none of theirs.")
    webui.post("/test/hypertile", enable=True)
    try:
        webui.draw("a house", width=256, height=256)
        wrapped = webui.get("/test/traits")["unet"]["wrapped"]
        assert wrapped > 0
        run = webui.train("tiled", source_image)
        assert "hypertile had changed the model" in notes(run)
        assert same(tensors(webui, "tiled"), tensors(webui, "first"))
        assert webui.get("/test/traits")["unet"]["wrapped"] == wrapped
    finally:
        webui.post("/test/hypertile", enable=False)
        webui.draw("a house")


@pytest.mark.parametrize(
    ("kind", "place"),
    [("forward", "attn2"), ("forward", "attn1.to_k"), ("hook", "attn1.to_v")],
)  # as negpip and regional-prompter, as ControlNet's LLLite, as incantations
def test_what_an_extension_left_on_the_unet_is_off_for_a_run_and_then_on_again(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None, kind: str, place: str
) -> None:
    left = webui.post("/test/leave", kind=kind, place=place)
    run = webui.train(f"left-{kind}-{place.replace('.', '-')}", source_image)
    after = webui.get("/test/traits")["unet"]
    webui.post("/test/leave", kind="none", place=place)
    # by where the WebUI takes a linked extension to lie
    origin = "(The extension test-helper|A hook of questions.py)"
    assert re.search(f"{origin} had changed the model", notes(run)), notes(run)
    assert same(tensors(webui, run["name"]), tensors(webui, "first"))
    assert {name: after[name] for name in ("wrapped", "hooks")} == left


def test_a_preview_is_what_txt2img_draws(webui: WebUI, source_image: Path, first_pair: Any) -> None:
    run = webui.train("drawn", source_image, preview_every=6, preview_steps=3, seed=5)
    (previewed,) = [e for e in run["events"] if e["type"] == "Previewed"]
    path = f"{API}/runs/{run['id']}/previews/{previewed['images']['base']}"
    preview = httpx.get(webui.url + path)
    assert preview.status_code == 200
    name = webui.data / "base.png"
    name.write_bytes(preview.content)
    settings = {"seed": 5, "sampler_name": first_sampler(webui), "cfg_scale": 7, "steps": 3}
    drawn = webui.draw(PROMPT, **settings)
    with Image.open(name) as image:
        assert image.convert("RGB").tobytes() == drawn.tobytes()


def test_an_image_of_a_sheet_is_what_txt2img_draws_with_the_pair(
    webui: WebUI, first_pair: Any, untouched: None
) -> None:
    sheet = webui.get("/test/sheet", name="first", prompt=PROMPT, seed=5)
    loras = "<lora:first_content:1> <lora:first_style:0.5>"
    settings = {"seed": 5, "sampler_name": first_sampler(webui), "cfg_scale": 7, "steps": 20}
    drawn = webui.draw(f"{PROMPT} {loras}", **settings).tobytes()
    assert sheet["sha256"] == hashlib.sha256(drawn).hexdigest()


def test_a_word_that_is_an_embedding_is_refused(webui: WebUI, source_image: Path) -> None:
    name = webui.get("/test/embedding", name="sks")["name"]
    run = webui.train("taken-word", source_image)
    webui.get("/test/embedding", name="")
    assert run["state"] == "failed"
    assert name in run["error"]
    assert "Choose another token" in run["error"]
    assert webui.get("/test/other")["job"] == ""
