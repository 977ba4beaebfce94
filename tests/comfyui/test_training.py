"""Unzip Image in the real ComfyUI, through its API; see programs.py for where it is looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file

from tests.comfyui.programs import ComfyUI, error_of
from tests.comfyui.workflows import drawn, node, probe, unzip
from tests.waiting import until
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.tensor_file import read_metadata
from unziplora.python_api import train

MINI, TINY = "mini.safetensors", "tiny.safetensors"
IMAGE = "cat.png"
ROLES = ("content", "style")


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return {
        f"{role}.{key}": tensor
        for role in ROLES
        for key, tensor in load_file(folder / f"{name}_{role}.safetensors").items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], role: str) -> float:
    """How far two LoRAs' weight changes are apart, relative to the first."""
    names = {key.partition(".lora_up")[0] for key in one if key.startswith(role) and "_up" in key}

    def change(of: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return of[f"{name}.lora_up.weight"].double() @ of[f"{name}.lora_down.weight"].double()

    apart = sum(float((change(one, n) - change(other, n)).square().sum()) for n in names)
    size = sum(float(change(one, n).square().sum()) for n in names)
    return float((apart / size) ** 0.5)


def lora_list(comfyui: ComfyUI) -> list[str]:
    """What the list of Load LoRA shows."""
    inputs = comfyui.get("/object_info/LoraLoader")["LoraLoader"]["input"]["required"]
    return list(inputs["lora_name"][0])


def parts(comfyui: ComfyUI, tag: str, checkpoint: str = MINI) -> Any:
    outputs = comfyui.run(probe(checkpoint, tag))["outputs"]
    return json.loads(outputs["probe"]["found"][0])


def forget(comfyui: ComfyUI) -> None:
    """ComfyUI's cache is that of a new process."""
    comfyui.post("/free", {"free_memory": True, "unload_models": True})


@pytest.fixture(scope="module")
def first(comfyui: ComfyUI) -> dict[str, torch.Tensor]:
    """A pair that was trained before anything else."""
    comfyui.run(unzip(MINI, IMAGE, name="first", preview_every=2))
    return tensors(comfyui.loras, "first")


def refused(comfyui: ComfyUI, workflow: dict[str, Any]) -> str:
    """The words of a workflow that fails."""
    ended = comfyui.ended(comfyui.queue(workflow))
    assert ended["status"]["status_str"] == "error"
    assert not list(comfyui.loras.glob("refused*"))
    return error_of(ended)


def test_files_lie_in_models_loras_and_nothing_else_of_the_run_does(
    comfyui: ComfyUI, first: Any
) -> None:
    for role, trigger in (("content", "sks cat"), ("style", "crayon drawing style")):
        card = json.loads((comfyui.loras / f"first_{role}.json").read_text("utf-8"))
        assert card["activation text"] == trigger
        metadata = read_metadata(comfyui.loras / f"first_{role}.safetensors")
        assert metadata["ss_sd_model_name"] == MINI
        assert metadata["modelspec.prediction_type"] == "v"
    listed = lora_list(comfyui)
    assert {"first_content.safetensors", "first_style.safetensors"} <= set(listed)
    assert not [name for name in listed if "unziplora" in name or "state" in name]
    assert (comfyui.runs / "first" / "settings.json").is_file()


def test_the_tensors_are_those_of_the_command_line(
    comfyui: ComfyUI, first: dict[str, torch.Tensor], source: Path, tmp_path: Path
) -> None:
    host = StandaloneHost.open(comfyui.data / "models" / "checkpoints" / MINI, device="cpu")
    settings = {"steps": 4, "rank": 4, "lr": 0.001, "resolution": 128, "seed": 5, "name": "first"}
    for _ in train(source, subject="cat", style="crayon drawing", host=host, settings=settings,
                   out=tmp_path):  # fmt: skip
        pass
    expected = tensors(tmp_path, "first")
    assert expected.keys() == first.keys()
    for role in ROLES:
        # the same numbers, but for what two implementations of one network round differently
        assert distance(expected, first, role) < 0.01


def test_all_560_layers_of_sdxl_are_trained_and_found(comfyui: ComfyUI) -> None:
    comfyui.run(unzip(TINY, IMAGE, name="tiny", steps=3))
    content = load_file(comfyui.loras / "tiny_content.safetensors")
    style = load_file(comfyui.loras / "tiny_style.safetensors")
    layers = {name.partition(".")[0] for name in (*content, *style)}
    assert len(layers) == 560
    comfyui.run(drawn(TINY, "a cat", between=load_pair("tiny"), model=["pair", 0]))
    assert "lora key not loaded" not in comfyui.console()


def load_pair(name: str, content: float = 1.0, style: float = 1.0) -> dict[str, Any]:
    return {
        "pair": node("UnZipLoRA_LoadPair", pair=name, content_strength=content,
                     style_strength=style, model=["model", 0])
    }  # fmt: skip


def test_the_model_is_afterwards_what_it_was(comfyui: ComfyUI, first: Any) -> None:
    comfyui.run(drawn(MINI, "a house", seed=1))
    before = parts(comfyui, "before")
    comfyui.run(unzip(MINI, IMAGE, name="traceless", preview_every=2))
    assert parts(comfyui, "after") == before


def test_the_same_image_and_settings_are_not_trained_twice(comfyui: ComfyUI, first: Any) -> None:
    forget(comfyui)
    files = [comfyui.loras / f"first_{role}.safetensors" for role in ROLES]
    before = [path.stat().st_mtime_ns for path in files]
    ended = comfyui.run(unzip(MINI, IMAGE, name="first", preview_every=2))
    assert len(ended["outputs"]["unzip"]["images"]) == 4  # its previews are shown again
    assert [path.stat().st_mtime_ns for path in files] == before
    assert not list(comfyui.loras.glob("first-2*"))


def test_other_settings_are_trained_under_a_name_with_a_number(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    comfyui.run(unzip(MINI, IMAGE, name="first", seed=6))
    assert all(distance(first, tensors(comfyui.loras, "first-2"), role) > 0.1 for role in ROLES)
    assert same(tensors(comfyui.loras, "first"), first)


def test_a_lora_that_was_drawn_with_does_not_get_into_the_next_pair(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    comfyui.run(drawn(MINI, "a cat", between=load_pair("first"), model=["pair", 0]))
    comfyui.run(unzip(MINI, IMAGE, name="second"))
    assert same(tensors(comfyui.loras, "second"), first)


def test_what_only_changes_drawing_is_left_out_and_named(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    freeu = node("FreeU", model=["model", 0], b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    comfyui.run({**unzip(MINI, IMAGE, name="third", model=["freeu", 0]), "freeu": freeu})
    assert same(tensors(comfyui.loras, "third"), first)
    assert "Other nodes have put output_block_patch on the model" in comfyui.console()


def test_a_schedule_that_a_node_has_chosen_is_trained_on(comfyui: ComfyUI) -> None:
    chosen = node("ModelSamplingDiscrete", model=["model", 0], sampling="v_prediction", zsnr=True)
    workflow = unzip(TINY, IMAGE, name="velocity", steps=3, model=["chosen", 0])
    comfyui.run({**workflow, "chosen": chosen})
    metadata = read_metadata(comfyui.loras / "velocity_content.safetensors")
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["ss_zero_terminal_snr"] == "True"
    assert metadata["ss_sd_model_name"] == TINY  # found through the node in between


def test_cancel_saves_and_queued_again_it_continues(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    workflow = unzip(MINI, IMAGE, name="cancelled")
    comfyui.post("/test/slow", {"seconds": 1})
    prompt = comfyui.queue(workflow)
    progress = comfyui.runs / "cancelled" / "progress.csv"
    until(lambda: progress.is_file() and len(progress.read_text().splitlines()) >= 2)
    httpx.post(f"{comfyui.url}/interrupt")
    kinds = [kind for kind, _ in comfyui.ended(prompt)["status"]["messages"]]
    comfyui.post("/test/slow", {"seconds": 0})
    assert "execution_interrupted" in kinds
    assert (comfyui.runs / "cancelled" / "state.safetensors").is_file()
    assert not list(comfyui.loras.glob("cancelled*"))
    comfyui.run(workflow)
    assert same(tensors(comfyui.loras, "cancelled"), first)
    assert not list(comfyui.loras.glob("cancelled-2*"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("object", "has replaced diffusion_model.input_blocks.0.0 of the model mini"),
        ("attention", "an attention on the model that has no gradients"),
        ("injection", "carries injected modules of another node"),
    ],
)
def test_what_training_would_go_through_is_refused_by_name(
    comfyui: ComfyUI, kind: str, words: str
) -> None:
    spoilt = node("TestSpoil", model=["model", 0], kind=kind)
    workflow = unzip(MINI, IMAGE, name="refused", model=["spoilt", 0])
    assert words in refused(comfyui, {**workflow, "spoilt": spoilt})


def test_a_lora_on_the_model_or_on_the_clip_is_refused(comfyui: ComfyUI, first: Any) -> None:
    lora = node("LoraLoader", model=["model", 0], clip=["model", 1], strength_clip=1.0,
                lora_name="first_content.safetensors", strength_model=1.0)  # fmt: skip
    workflow = unzip(MINI, IMAGE, name="refused", model=["lora", 0])
    assert "carries a LoRA" in refused(comfyui, {**workflow, "lora": lora})


def test_another_models_clip_or_vae_is_refused(comfyui: ComfyUI) -> None:
    others = {"others": node("TestOthers")}
    clip = unzip(MINI, IMAGE, name="refused", clip=["others", 0])
    assert "The CLIP is not that of an SDXL checkpoint" in refused(comfyui, {**clip, **others})
    vae = unzip(MINI, IMAGE, name="refused", vae=["others", 1])
    assert "The VAE is not one of SDXL" in refused(comfyui, {**vae, **others})
    approximate = unzip(MINI, IMAGE, name="refused", vae=["others", 2])
    assert "The VAE is an approximate one" in refused(comfyui, {**approximate, **others})


def test_a_model_whose_file_says_v_is_not_trained_as_epsilon(comfyui: ComfyUI) -> None:
    chosen = node("ModelSamplingDiscrete", model=["model", 0], sampling="eps", zsnr=False)
    workflow = unzip(MINI, IMAGE, name="refused", model=["chosen", 0])
    assert "says that it predicts v" in refused(comfyui, {**workflow, "chosen": chosen})
    distilled = node("ModelSamplingDiscrete", model=["model", 0], sampling="lcm", zsnr=False)
    assert "cannot be trained here" in refused(comfyui, {**workflow, "chosen": distilled})


def test_weights_that_comfyui_casts_train_alike_and_fp8_is_refused(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    half = node("TestLoad", ckpt_name=MINI, dtype="float16")  # as they are in the file
    comfyui.run({**unzip(MINI, IMAGE, name="half"), "model": half})
    assert same(tensors(comfyui.loras, "half"), first)
    fp8 = node("TestLoad", ckpt_name=MINI, dtype="float8_e4m3fn")
    workflow = {**unzip(MINI, IMAGE, name="refused"), "model": fp8}
    assert "loaded with fp8 weights" in refused(comfyui, workflow)


def test_two_images_are_refused(comfyui: ComfyUI) -> None:
    twice = node("RepeatImageBatch", image=["image", 0], amount=2)
    workflow = unzip(MINI, IMAGE, name="refused", image=["twice", 0])
    assert "2 are connected" in refused(comfyui, {**workflow, "twice": twice})


def test_words_that_cannot_be_trained_are_refused_in_the_node(comfyui: ComfyUI) -> None:
    assert "<" in refused(comfyui, unzip(MINI, IMAGE, name="refused", subject="<lora:a:1>"))
    assert "embedding" in refused(
        comfyui, unzip(MINI, IMAGE, name="refused", token="embedding:easynegative")
    )


def test_a_hook_that_another_node_left_is_off_for_the_run(
    comfyui: ComfyUI, first: dict[str, torch.Tensor]
) -> None:
    hooked = node("TestSpoil", model=["model", 0], kind="hook")
    comfyui.run({**unzip(MINI, IMAGE, name="hooked", model=["hooked", 0]), "hooked": hooked})
    assert same(tensors(comfyui.loras, "hooked"), first)
    assert parts(comfyui, "with its hook")["unet"]["hooks"] == 1
    forget(comfyui)  # the hook goes with the model


def test_cancel_while_a_preview_is_drawn_saves_too(comfyui: ComfyUI) -> None:
    workflow = unzip(MINI, IMAGE, name="drawing", preview_every=1, preview_steps=200, steps=3)
    prompt = comfyui.queue(workflow)
    previews = comfyui.runs / "drawing" / "previews"
    until(previews.is_dir)  # made when the first one is begun
    httpx.post(f"{comfyui.url}/interrupt")
    kinds = [kind for kind, _ in comfyui.ended(prompt)["status"]["messages"]]
    assert "execution_interrupted" in kinds
    assert (comfyui.runs / "drawing" / "state.safetensors").is_file()
    assert not list(comfyui.loras.glob("drawing*"))
