"""What happens in a real WebUI while a run holds its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.hosts.pairs import PROMPT, in_background, same, tensors
from tests.hosts.programs import WebUI


def test_interrupt_saves_what_was_learned(
    webui: WebUI, source_image: Path, untouched: None, held: None
) -> None:
    job = webui.start("interrupted", source_image, steps=300)
    webui.stands(job, 1)
    webui.post("/sdapi/v1/interrupt")
    webui.hold()
    run = webui.ended(job)
    assert (run["state"], run["step"]) == ("stopped", 2)
    assert set(run["files"]) == {"content", "style"}


def test_an_exception_in_the_middle_is_reported_and_the_next_run_completes(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None
) -> None:
    webui.post("/test/fail", step=2)
    run = webui.train("broken", source_image)
    assert run["state"] == "failed"
    assert "a test requested this" in run["error"]
    assert webui.train("after-broken", source_image)["state"] == "completed"
    assert same(tensors(webui, "after-broken"), tensors(webui, "first"))


def test_a_pause_frees_the_webui_and_the_run_continues_exactly(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None, held: None
) -> None:
    job = webui.start("paused", source_image)
    webui.stands(job, 1)
    webui.command(job, "pause")
    webui.hold()
    assert webui.ended(job)["state"] == "paused"
    webui.draw(f"{PROMPT} <lora:first_content:1>")
    webui.command(job, "resume")
    webui.wait(lambda: webui.run(job)["state"] == "completed")
    assert same(tensors(webui, "paused"), tensors(webui, "first"))


def test_previews_do_not_disturb_the_progress_that_the_webui_shows(
    webui: WebUI, source_image: Path, untouched: None, held: None
) -> None:
    job = webui.start("shown", source_image, preview_steps=2)
    webui.stands(job, 1)
    webui.command(job, "preview now")
    webui.hold(2)
    webui.wait(lambda: any(e["type"] == "Previewed" for e in webui.run(job)["events"]))
    shown = webui.get("/sdapi/v1/progress")["state"]
    assert (shown["sampling_steps"], shown["job_count"]) == (6, 1)
    assert shown["sampling_step"] == 2
    webui.hold()
    assert webui.ended(job)["state"] == "completed"
    (previewed,) = [e for e in webui.run(job)["events"] if e["type"] == "Previewed"]
    assert set(previewed["images"]) == {"base", "content", "style", "both"}


def test_a_checkpoint_chosen_during_a_run_is_loaded_after_it(
    webui: WebUI, source_image: Path, first_pair: Any, held: None, checkpoints: list[Path]
) -> None:
    before, other = webui.get("/test/other")["checkpoint"], checkpoints[1].name
    job = webui.start("kept", source_image, preview_every=3, preview_steps=2)
    webui.stands(job, 1)
    request = in_background(webui.post, "/sdapi/v1/options", {"sd_model_checkpoint": other})
    webui.wait(lambda: webui.get("/sdapi/v1/options")["sd_model_checkpoint"].startswith(other))
    webui.hold()
    run = webui.ended(job)
    assert run["state"] == "completed", run
    assert not [e for e in run["events"] if e["type"] == "Message"]
    assert same(tensors(webui, "kept"), tensors(webui, "first"))
    request.result()
    webui.draw("a house")
    assert webui.get("/test/other")["checkpoint"] == other
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": before})
    webui.draw("a house")


def test_unloading_the_checkpoint_is_refused_during_a_run(
    webui: WebUI, source_image: Path, untouched: None, held: None
) -> None:
    job = webui.start("still-loaded", source_image)
    webui.stands(job, 1)
    answer = webui.client.post("/sdapi/v1/unload-checkpoint")
    assert answer.status_code == 409
    assert "UnZipLoRA is training" in answer.text
    webui.hold()
    assert webui.ended(job)["state"] == "completed"


def test_reload_ui_finds_the_run_again(
    webui: WebUI, source_image: Path, first_pair: Any, held: None
) -> None:
    job = webui.start("reloaded", source_image, steps=30)
    webui.stands(job, 1)
    webui.post("/test/reload")
    webui.wait(lambda: webui.up(times=2))
    run = webui.run(job)
    assert run["state"] == "running"
    webui.hold()
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
    assert (closing.runs / "closed" / "state.safetensors").is_file()
