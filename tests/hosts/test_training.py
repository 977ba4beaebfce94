"""Training in the real WebUIs, through the API; see webui.py for where they are looked for."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.hosts.checkpoints import velocity_model
from tests.hosts.programs import API, WebUI
from unziplora.hosts.standalone.generate import generate
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.tensor_file import read_metadata
from unziplora.mini import IMAGE, STYLE

PROMPT = "a sks cat in crayon drawing style"
# what the descendants of Forge write to their console of a file that fits
SAID_OF_560 = {
    "forge": "KModel-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
    "neo": "KModel-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
    "reforge": "SDXL with 560 keys (UNet: 560, CLIP: 0) at weight 1.0",
    "classic": "SDXL-UNet with 560 keys at weight 1.0 (skipped 0 keys)",
}


@pytest.fixture(scope="module")
def clean(webui: WebUI, source_image: Path) -> Any:
    """A first pair, trained in a WebUI that has drawn nothing with a LoRA yet."""
    told = webui.train("first", source_image)
    assert told["state"] == "completed", told
    return told


@pytest.fixture
def untouched(webui: WebUI) -> Iterator[None]:
    """What a test does leaves weights, their places, flags, hooks and images as they were."""
    webui.draw("a house")  # Forge loads its model for it
    if (webui.loras / "first_content.safetensors").exists():
        # reForge and forge-classic keep inference tensors of what a LoRA was ever merged into
        webui.draw("a house <lora:first_content:1>")
    before = state(webui)
    yield
    assert state(webui) == before


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


def in_background(call: Any, *arguments: Any) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return future


@pytest.fixture
def slowly(webui: WebUI) -> Iterator[None]:
    """Steps take long enough to do something meanwhile."""
    webui.post("/test/slow", seconds=1)
    yield
    webui.post("/test/slow", seconds=0)


def test_all_560_layers_of_both_files_are_found(webui: WebUI, clean: Any) -> None:
    assert [e["layers"] for e in clean["events"] if e["type"] == "Started"] == [560]
    for name in ("first_content", "first_style"):
        if webui.kind == "a1111":
            assert webui.get("/test/matched", name=name)["layers"] == 560
        else:
            webui.draw(f"{PROMPT} <lora:{name}:1>")
            assert f"{name}.safetensors for {SAID_OF_560[webui.kind]}" in webui.console()


def test_files_land_in_the_lora_folder_with_card_and_image(webui: WebUI, clean: Any) -> None:
    for role, trigger in (("content", "sks cat"), ("style", "crayon drawing style")):
        for ending in ("safetensors", "json", "png"):
            assert (webui.loras / f"first_{role}.{ending}").is_file()
        card = json.loads((webui.loras / f"first_{role}.json").read_text("utf-8"))
        assert card["activation text"] == trigger
    names = {lora["name"] for lora in webui.get("/sdapi/v1/loras")}
    assert {"first_content", "first_style"} <= names  # without asking it to refresh


def test_the_pair_changes_images_alone_and_together_and_at_weight_0_nothing(
    webui: WebUI, clean: Any, untouched: None
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
    last_prompt = (webui.data / "params.txt").read_text("utf-8")
    told = webui.train("traceless", source_image, preview_every=3, preview_steps=2)
    assert told["state"] == "completed", told
    assert len([e for e in told["events"] if e["type"] == "Previewed"]) == 2
    assert webui.get("/test/packages") == packages
    assert (webui.data / "params.txt").read_text("utf-8") == last_prompt
    assert last_prompt.startswith("the last prompt")


def test_a_lora_in_the_prompt_just_before_does_not_get_into_the_next_pair(
    webui: WebUI, source_image: Path, clean: Any, untouched: None
) -> None:
    webui.draw(f"{PROMPT} <lora:first_content:1> <lora:first_style:0.7>")
    told = webui.train("second", source_image, preview_every=3, preview_steps=2)
    assert told["state"] == "completed", told
    assert same(tensors(webui, "second"), tensors(webui, "first"))


def notes(told: Any) -> str:
    return " ".join(e["text"] for e in told["events"] if e["type"] == "Message")


def test_hypertile_that_an_image_left_on_is_off_for_a_run_and_then_back(
    webui: WebUI, source_image: Path, clean: Any
) -> None:
    if webui.kind != "a1111":
        pytest.skip("The others' Hypertile leaves nothing behind, or is none of theirs.")
    webui.post("/test/hypertile", enable=True)
    try:
        webui.draw("a house", width=256, height=256)
        wrapped = webui.get("/test/traits")["unet"]["wrapped"]
        assert wrapped > 0
        told = webui.train("tiled", source_image)
        assert "hypertile had changed the model" in notes(told)
        assert same(tensors(webui, "tiled"), tensors(webui, "first"))
        assert webui.get("/test/traits")["unet"]["wrapped"] == wrapped
    finally:
        webui.post("/test/hypertile", enable=False)
        webui.draw("a house")


@pytest.mark.parametrize(
    ("kind", "place"),
    [("forward", "attn2"), ("forward", "attn1.to_k"), ("hook", "attn1.to_v")],
)  # as negpip and regional-prompter, as ControlNet's LLLite, as incantations
def test_what_an_extension_left_on_the_unet_is_off_for_a_run_and_then_back(
    webui: WebUI, source_image: Path, clean: Any, untouched: None, kind: str, place: str
) -> None:
    left = webui.post("/test/leave", kind=kind, place=place)
    told = webui.train(f"left-{kind}-{place.replace('.', '-')}", source_image)
    after = webui.get("/test/traits")["unet"]
    webui.post("/test/leave", kind="none", place=place)
    assert "A hook of questions.py had changed the model" in notes(told)
    assert same(tensors(webui, told["name"]), tensors(webui, "first"))
    assert {name: after[name] for name in ("wrapped", "hooks")} == left


def test_a_image_asked_for_meanwhile_waits_and_comes(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    alone = webui.draw(PROMPT).tobytes()
    job = webui.start("waited-for", source_image)
    webui.at_step(job, 1)
    asked = in_background(webui.draw, PROMPT)
    time.sleep(1)
    assert not asked.done()
    assert webui.get("/sdapi/v1/progress")["state"]["job"] == "UnZipLoRA training"
    assert asked.result().tobytes() == alone
    assert webui.run(job)["state"] == "completed"


def test_interrupt_saves_what_was_learned(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    job = webui.start("interrupted", source_image, steps=300)
    webui.at_step(job, 2)
    webui.post("/sdapi/v1/interrupt")
    told = webui.ended(job)
    assert told["state"] == "stopped"
    assert told["step"] < 10
    assert set(told["files"]) == {"content", "style"}


def test_an_exception_in_the_middle_is_told_and_the_next_run_goes_well(
    webui: WebUI, source_image: Path, clean: Any, untouched: None
) -> None:
    webui.post("/test/fail", step=2)
    told = webui.train("broken", source_image)
    assert told["state"] == "failed"
    assert "a test asked for this" in told["error"]
    assert webui.train("after-broken", source_image)["state"] == "completed"
    assert same(tensors(webui, "after-broken"), tensors(webui, "first"))


def test_a_pause_lends_the_webui_back_and_the_run_goes_on_exactly(
    webui: WebUI, source_image: Path, clean: Any, untouched: None, slowly: None
) -> None:
    job = webui.start("paused", source_image)
    webui.at_step(job, 2)
    webui.command(job, "pause")
    assert webui.ended(job)["state"] == "paused"
    webui.draw(f"{PROMPT} <lora:first_content:1>")
    webui.command(job, "resume")
    webui.wait(lambda: webui.run(job)["state"] == "completed")
    assert same(tensors(webui, "paused"), tensors(webui, "first"))


def test_previews_do_not_disturb_the_progress_that_the_webui_shows(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    job = webui.start("shown", source_image, preview_steps=2)
    webui.at_step(job, 2)
    webui.command(job, "preview now")
    webui.wait(lambda: any(e["type"] == "Previewed" for e in webui.run(job)["events"]))
    shown = webui.get("/sdapi/v1/progress")["state"]
    assert (shown["sampling_steps"], shown["job_count"]) == (6, 1)
    assert 2 <= shown["sampling_step"] <= 6
    assert webui.ended(job)["state"] == "completed"
    (previewed,) = [e for e in webui.run(job)["events"] if e["type"] == "Previewed"]
    assert set(previewed["images"]) == {"base", "content", "style", "both"}


def test_a_preview_is_what_txt2img_draws(webui: WebUI, source_image: Path, clean: Any) -> None:
    told = webui.train("drawn", source_image, preview_every=6, preview_steps=3, seed=5)
    (previewed,) = [e for e in told["events"] if e["type"] == "Previewed"]
    path = f"{API}/runs/{told['id']}/previews/{previewed['images']['base']}"
    preview = httpx.get(webui.url + path)
    assert preview.status_code == 200
    name = webui.data / "base.png"
    name.write_bytes(preview.content)
    settings = {"seed": 5, "sampler_name": first_sampler(webui), "cfg_scale": 7, "steps": 3}
    drawn = webui.draw(PROMPT, **settings)
    with Image.open(name) as image:
        assert image.convert("RGB").tobytes() == drawn.tobytes()


def test_a_image_of_a_sheet_is_what_txt2img_draws_with_the_pair(
    webui: WebUI, clean: Any, untouched: None
) -> None:
    told = webui.get("/test/sheet", name="first", prompt=PROMPT, seed=5)
    loras = "<lora:first_content:1> <lora:first_style:0.5>"
    settings = {"seed": 5, "sampler_name": first_sampler(webui), "cfg_scale": 7, "steps": 20}
    drawn = webui.draw(f"{PROMPT} {loras}", **settings).tobytes()
    assert told["sha256"] == hashlib.sha256(drawn).hexdigest()


def test_a_checkpoint_chosen_meanwhile_is_loaded_after_the_run(
    webui: WebUI, source_image: Path, clean: Any, slowly: None, checkpoints: list[Path]
) -> None:
    before, other = webui.get("/test/other")["checkpoint"], checkpoints[1].name
    job = webui.start("kept", source_image, preview_every=3, preview_steps=2)
    webui.at_step(job, 1)
    asked = in_background(webui.post, "/sdapi/v1/options", {"sd_model_checkpoint": other})
    told = webui.ended(job)
    assert told["state"] == "completed", told
    assert not [e for e in told["events"] if e["type"] == "Message"]
    assert same(tensors(webui, "kept"), tensors(webui, "first"))
    asked.result()
    webui.draw("a house")
    assert webui.get("/test/other")["checkpoint"] == other
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": before})
    webui.draw("a house")


def test_unloading_the_checkpoint_is_refused_meanwhile(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    job = webui.start("still-loaded", source_image)
    webui.at_step(job, 1)
    answer = webui.client.post("/sdapi/v1/unload-checkpoint")
    assert answer.status_code == 409
    assert "UnZipLoRA is training" in answer.text
    assert webui.ended(job)["state"] == "completed"


def test_reload_ui_finds_the_run_again(
    webui: WebUI, source_image: Path, clean: Any, slowly: None
) -> None:
    job = webui.start("reloaded", source_image, steps=12)
    webui.at_step(job, 2)
    webui.post("/test/reload")
    webui.wait(lambda: webui.up(times=2))
    told = webui.run(job)
    assert told["state"] == "running"
    assert webui.ended(job)["state"] == "completed"
    webui.draw("a house")


def test_a_webui_that_is_interrupted_saves_the_run_first(
    webui: WebUI,
    source_image: Path,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[Path],
) -> None:
    """Ctrl-C in its window ends it at once (modules/initialize_util.py:163)."""
    with WebUI(webui.kind, tmp_path_factory.mktemp("closing"), checkpoints) as closing:
        job = closing.start("closed", source_image, steps=3000)
        closing.at_step(job, 2)
        closing.interrupt()
    assert (closing.loras / ".unziplora" / "closed" / "state.safetensors").is_file()


def test_a_word_that_is_an_embedding_is_refused(webui: WebUI, source_image: Path) -> None:
    name = webui.get("/test/embedding", name="sks")["name"]
    told = webui.train("taken-word", source_image)
    webui.get("/test/embedding", name="")
    assert told["state"] == "failed"
    assert name in told["error"]
    assert "Choose another token" in told["error"]
    assert webui.get("/test/other")["job"] == ""


# Forge's API looks at how to store a checkpoint only when another option changes, here the second.
STORAGE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a1111": ({"fp8_storage": "Enable for SDXL"}, {"fp8_storage": "Disable"}),
    "forge": (
        {"forge_unet_storage_dtype": "float8-e4m3fn", "forge_inference_memory": 1500},
        {"forge_unet_storage_dtype": "Automatic", "forge_inference_memory": 1024},
    ),
}


def test_a_checkpoint_stored_in_fp8_trains_and_stays_as_it_is(
    webui: WebUI, source_image: Path
) -> None:
    if webui.kind not in STORAGE:
        pytest.skip("It is told by a flag at its start: see test_auth.py.")
    small, plain = STORAGE[webui.kind]
    webui.post("/sdapi/v1/options", small)
    try:
        webui.draw("a house")
        before = webui.get("/test/weights")
        assert "torch.float8_e4m3fn" in webui.get("/test/traits")["unet"]["dtypes"]
        told = webui.train("in-fp8", source_image)
        assert told["state"] == "completed", told
        losses = [e["loss"] for e in told["events"] if e["type"] == "StepDone"]
        assert losses[-1] < losses[0]
        assert webui.get("/test/weights") == before
    finally:
        webui.post("/sdapi/v1/options", plain)
        webui.draw("a house")


def sampled_before(webui: WebUI) -> None:
    """Forgets what earlier images were sampled with."""
    webui.draw("a house")
    webui.get("/test/schedule")


def test_training_uses_the_noise_schedule_that_images_are_sampled_with(webui: WebUI) -> None:
    last = {}
    sampled_before(webui)
    for choice in ("Zero Terminal SNR", "Default"):
        webui.post("/sdapi/v1/options", {"sd_noise_schedule": choice})
        webui.draw("a house")
        told = webui.get("/test/schedule")
        assert told["training"] == pytest.approx(told["sampling"], rel=1e-2)
        last[choice] = told["training"]
    # forge-classic heeds the option for velocity only
    assert (last["Zero Terminal SNR"] < 1e-6) == (webui.kind != "classic")
    assert last["Default"] > 1e-6


def test_a_checkpoint_marked_as_zero_terminal_snr_is_trained_so_where_it_is_sampled_so(
    webui: WebUI, tmp_path: Path, source_image: Path, checkpoints: list[Path]
) -> None:
    """Forge and its relatives read the markers. Automatic1111 reads neither: velocity is in the
    file's .yaml there, and zero terminal SNR an option. forge-classic has the former from a .yaml
    of its own that the marker chooses."""
    folder = webui.data / "models" / "Stable-diffusion"
    marked = shutil.copy(velocity_model(tmp_path), folder)
    twin = (folder / checkpoints[0].name).with_suffix(".yaml").read_text("utf-8")
    if webui.kind in ("a1111", "classic"):
        twin = twin.replace("Eps", "V")
    Path(marked).with_suffix(".yaml").write_text(twin, "utf-8")
    webui.post("/sdapi/v1/refresh-checkpoints")
    before = webui.get("/test/other")["option"]
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": Path(marked).name})
    try:
        sampled_before(webui)
        webui.draw("a house")
        told = webui.get("/test/schedule")
        assert told["prediction_type"] == "v_prediction"
        assert told["training"] == pytest.approx(told["sampling"], rel=1e-2)
        assert (told["training"] < 1e-6) == (webui.kind != "a1111")
        assert webui.train("velocity", source_image)["state"] == "completed"
    finally:
        webui.post("/sdapi/v1/options", {"sd_model_checkpoint": before})
        webui.draw("a house")
    header = read_metadata(webui.loras / "velocity_content.safetensors")
    assert header["ss_zero_terminal_snr"] == str(webui.kind != "a1111")


def test_another_checkpoint_trains_and_diffusers_draws_with_its_pair(
    webui: WebUI, checkpoints: list[Path]
) -> None:
    tiny, mini = (checkpoint.name for checkpoint in checkpoints)
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": mini})
    try:
        # With the rate and rank that its file names, beyond the first window: there a layer's
        # gradient is 1e-13, which Automatic1111's attention rounds to zero.
        told = webui.train("small", IMAGE, style=STYLE, steps=30, rank=None, lr=None)
    finally:
        webui.post("/sdapi/v1/options", {"sd_model_checkpoint": tiny})
    assert told["state"] == "completed", told
    (started,) = [e for e in told["events"] if e["type"] == "Started"]
    assert (started["architecture"], started["layers"]) == ("mini", 88)
    host = StandaloneHost.open(checkpoints[1], device="cpu")
    pair = [(webui.loras / f"small_{role}.safetensors", 1.0) for role in ("content", "style")]
    plain, both = (
        generate(host, PROMPT, loras=loras, size=(128, 128), steps=2, seed=0).tobytes()
        for loras in ([], pair)
    )
    assert plain != both
