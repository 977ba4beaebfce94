"""Load Pair, Combine Pairs and Save Pair in the real ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.comfyui.programs import ROOT, ComfyUI, error_of
from tests.comfyui.workflows import drawn, node, unzip
from unziplora.lora.pair import find_pair

MINI, TINY, IMAGE = "mini.safetensors", "tiny.safetensors", "cat.png"
PROMPT = "a sks cat in crayon drawing style"
EXAMPLES = ROOT / "comfyui" / "examples"


@pytest.fixture(scope="module")
def pairs(comfyui: ComfyUI) -> ComfyUI:
    """With the pairs "one" and "two", of two seeds."""
    for name, seed in (("one", 11), ("two", 12)):
        comfyui.run(unzip(MINI, IMAGE, name=name, seed=seed, lr=0.02))
    return comfyui


def load(name: str, content: float = 1.0, style: float = 1.0) -> dict[str, Any]:
    return node("UnZipLoRA_LoadPair", pair=name, content_strength=content, style_strength=style,
                model=["model", 0])  # fmt: skip


def image(comfyui: ComfyUI, between: dict[str, Any] | None = None, model: Any = None) -> bytes:
    ended = comfyui.run(drawn(MINI, PROMPT, between=between, model=model))
    name = ended["outputs"]["saved"]["images"][0]["filename"]
    with Image.open(comfyui.data / "output" / name) as opened:
        return opened.convert("RGB").tobytes()


def test_the_nodes_are_in_a_category_of_their_own(comfyui: ComfyUI) -> None:
    known = comfyui.get("/object_info")
    ours = {name: one for name, one in known.items() if one["category"] == "UnZipLoRA"}
    assert {one["display_name"] for one in ours.values()} == {
        "Unzip Image", "Load Pair", "Combine Pairs", "Save Pair",
    }  # fmt: skip
    assert "IMPORT FAILED" not in comfyui.console()


def test_a_new_pair_is_in_the_list(pairs: ComfyUI) -> None:
    inputs = pairs.get("/object_info/UnZipLoRA_LoadPair")["UnZipLoRA_LoadPair"]["input"]
    listed = inputs["required"]["pair"][1]["options"]
    assert {"one", "two"} <= set(listed)


def test_content_style_and_both_change_the_image_and_strength_0_does_not(pairs: ComfyUI) -> None:
    alone = image(pairs)
    strengths = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    changed = [image(pairs, {"pair": load("one", *pair)}, ["pair", 0]) for pair in strengths]
    assert len({alone, *changed}) == 4
    assert image(pairs, {"pair": load("one", 0.0, 0.0)}, ["pair", 0]) == alone


def test_load_pair_draws_what_comfyuis_own_nodes_draw(pairs: ComfyUI) -> None:
    ours = image(pairs, {"pair": load("one", 0.8, 0.6)}, ["pair", 0])
    own = {
        "content": node("LoraLoaderModelOnly", model=["model", 0], strength_model=0.8,
                        lora_name="one_content.safetensors"),
        "style": node("LoraLoaderModelOnly", model=["content", 0], strength_model=0.6,
                      lora_name="one_style.safetensors"),
    }  # fmt: skip
    assert ours == image(pairs, own, ["style", 0])


def test_a_pair_of_another_architecture_is_refused(pairs: ComfyUI) -> None:
    workflow = drawn(TINY, PROMPT, between={"pair": load("one")}, model=["pair", 0])
    ended = pairs.ended(pairs.queue(workflow))
    assert "do not fit this model" in error_of(ended)


def test_a_pair_that_is_gone_is_named(pairs: ComfyUI) -> None:
    workflow = drawn(MINI, PROMPT, between={"pair": load("nothing")}, model=["pair", 0])
    answer = pairs.client.post("/prompt", json={"prompt": workflow})
    assert answer.status_code == 400
    assert "There is no pair nothing in models/loras" in answer.text


def test_the_content_of_one_and_the_style_of_another_become_one_lora(pairs: ComfyUI) -> None:
    between = {
        "one": load("one"),
        "two": load("two"),
        "combined": node("UnZipLoRA_CombinePairs", content=["one", 1], style=["two", 2],
                         content_weight=1.0, style_weight=0.5, how="add", file_name="both"),
        "applied": node("LoraModelLoader", model=["model", 0], lora=["combined", 0],
                        strength_model=1.0),
    }  # fmt: skip
    image(pairs, between, ["applied", 0])
    merged = load_file(pairs.loras / "both.safetensors")
    content = load_file(pairs.loras / "one_content.safetensors")
    style = load_file(pairs.loras / "two_style.safetensors")
    name = next(iter(content)).partition(".")[0]

    def change(lora: dict[str, torch.Tensor]) -> torch.Tensor:
        down, up = (lora[f"{name}.lora_{part}.weight"].double() for part in ("down", "up"))
        return lora[f"{name}.alpha"].double() / len(down) * up @ down

    expected = change(content) + 0.5 * change(style)
    assert (change(merged) - expected).norm() < 0.01 * expected.norm()


def test_two_halves_are_saved_as_a_pair_that_is_found(pairs: ComfyUI) -> None:
    pairs.run({
        "model": node("CheckpointLoaderSimple", ckpt_name=MINI),
        "one": load("one"),
        "two": load("two"),
        "saved": node("UnZipLoRA_SavePair", content=["one", 1], style=["two", 2], name="mixed",
                      overwrite=False),
    })  # fmt: skip
    found = find_pair(pairs.loras, "mixed")
    assert found is not None
    assert found.content_trigger == "sks cat"
    image(pairs, {"pair": load("mixed")}, ["pair", 0])


@pytest.mark.parametrize("name", ["train_and_draw", "combine_two_pairs"])
def test_the_examples_run(pairs: ComfyUI, source: Path, name: str) -> None:
    """In the form for the API, with what a user would choose: the checkpoint, image and pairs."""
    text = (EXAMPLES / "api" / f"{name}.json").read_text("utf-8")
    workflow = json.loads(text)
    chosen = {
        "CheckpointLoaderSimple": {"ckpt_name": MINI},
        "LoadImage": {"image": IMAGE},
        "EmptyLatentImage": {"width": 128, "height": 128},
        "KSampler": {"steps": 2},
        "UnZipLoRA_UnzipImage": {"steps": 3, "rank": 4, "resolution": 128, "preview_steps": 1},
    }
    names = iter(("one", "two"))
    for one in workflow.values():
        one["inputs"].update(chosen.get(one["class_type"], {}))
        if one["class_type"] == "UnZipLoRA_LoadPair":
            one["inputs"]["pair"] = next(names)
    ended = pairs.run(workflow)
    assert any("images" in shown for shown in ended["outputs"].values())
