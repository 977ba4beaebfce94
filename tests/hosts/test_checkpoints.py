"""Runs on checkpoints of other kinds in the real WebUIs: fp8, velocity, the miniature."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.checkpoints import velocity_model
from tests.hosts.pairs import PROMPT
from tests.hosts.programs import WebUI
from unziplora.hosts.standalone.generate import generate
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.tensor_file import read_metadata
from unziplora.mini import IMAGE, STYLE

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
        pytest.skip("It is run by a flag at its start: see test_auth.py.")
    small, plain = STORAGE[webui.kind]
    webui.post("/sdapi/v1/options", small)
    try:
        webui.draw("a house")
        before = webui.get("/test/weights")
        assert "torch.float8_e4m3fn" in webui.get("/test/traits")["unet"]["dtypes"]
        run = webui.train("in-fp8", source_image)
        assert run["state"] == "completed", run
        losses = [e["loss"] for e in run["events"] if e["type"] == "StepDone"]
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
        schedule = webui.get("/test/schedule")
        assert schedule["training"] == pytest.approx(schedule["sampling"], rel=1e-2)
        last[choice] = schedule["training"]
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
        schedule = webui.get("/test/schedule")
        assert schedule["prediction_type"] == "v_prediction"
        assert schedule["training"] == pytest.approx(schedule["sampling"], rel=1e-2)
        assert (schedule["training"] < 1e-6) == (webui.kind != "a1111")
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
        run = webui.train("small", IMAGE, style=STYLE, steps=30, rank=None, lr=None)
    finally:
        webui.post("/sdapi/v1/options", {"sd_model_checkpoint": tiny})
    assert run["state"] == "completed", run
    (started,) = [e for e in run["events"] if e["type"] == "Started"]
    assert (started["architecture"], started["layers"]) == ("mini", 88)
    host = StandaloneHost.open(checkpoints[1], device="cpu")
    pair = [(webui.loras / f"small_{role}.safetensors", 1.0) for role in ("content", "style")]
    plain, both = (
        generate(host, PROMPT, loras=loras, size=(128, 128), steps=2, seed=0).tobytes()
        for loras in ([], pair)
    )
    assert plain != both


def test_a_run_after_an_image_with_another_checkpoint_has_the_chosen_one(
    webui: WebUI, checkpoints: list[Path], source_image: Path
) -> None:
    chosen, other = (checkpoint.name for checkpoint in checkpoints)
    webui.draw("a house", override_settings={"sd_model_checkpoint": other})
    run = webui.train("chosen", source_image, steps=2)
    assert run["state"] == "completed", run
    (started,) = [e for e in run["events"] if e["type"] == "Started"]
    assert started["architecture"] == "sdxl"
    header = read_metadata(webui.loras / "chosen_content.safetensors")
    assert header["ss_sd_model_name"] == chosen
