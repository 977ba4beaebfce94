"""Images go first in the real WebUIs: asked for while a run trains, drawn between two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.hosts.pairs import PROMPT, in_background, same, tensors
from tests.hosts.programs import WebUI


def queue_text(webui: WebUI, task: str) -> str:
    """What the page's progress bar says of a task."""
    answer = webui.post("/internal/progress", {"id_task": task, "live_preview": False})
    return str(answer.get("textinfo"))


def test_an_image_is_drawn_between_two_steps_and_neither_changes_the_other(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None, slowly: None
) -> None:
    with_lora = f"{PROMPT} <lora:first_content:1>"
    alone, changed = webui.draw(PROMPT).tobytes(), webui.draw(with_lora).tobytes()
    webui.post("/test/slow", seconds=6)
    job = webui.start("second", source_image, steps=6)
    webui.at_step(job, 1)
    request = in_background(lambda: webui.draw(PROMPT, force_task_id="task(asked)"))
    webui.wait(lambda: "your image is next" in queue_text(webui, "task(asked)") or request.done())
    assert request.result().tobytes() == alone
    assert webui.run(job)["state"] == "running"
    assert webui.draw(with_lora).tobytes() == changed
    webui.post("/test/slow", seconds=0)
    run = webui.ended(job)
    assert run["state"] == "completed", run
    assert sum(event["type"] == "GivingWay" for event in run["events"]) == 2
    assert same(tensors(webui, "first"), tensors(webui, "second"))


def test_interrupt_is_about_the_image_that_waits(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    webui.post("/test/slow", seconds=6)
    job = webui.start("continues", source_image)
    webui.at_step(job, 1)
    request = in_background(lambda: webui.draw(PROMPT, steps=150, force_task_id="task(given-up)"))
    webui.wait(
        lambda: "your image is next" in queue_text(webui, "task(given-up)") or request.done()
    )
    assert not request.done(), "the image was drawn before anybody saw it wait"
    webui.post("/sdapi/v1/interrupt")
    webui.wait(request.done)
    assert "150/150" not in webui.console(), "the image was drawn to its end"
    assert webui.run(job)["state"] == "running"
    assert webui.ended(job)["state"] == "completed"


def test_where_the_option_is_off_an_image_waits_for_the_run(
    webui: WebUI, source_image: Path, untouched: None, slowly: None
) -> None:
    webui.post("/sdapi/v1/options", {"unziplora_images_first": False})
    try:
        job = webui.start("alone", source_image, steps=4)
        webui.at_step(job, 1)
        request = in_background(lambda: webui.draw(PROMPT, force_task_id="task(later)"))
        webui.wait(lambda: "comes after it" in queue_text(webui, "task(later)"))
        request.result()
        assert webui.run(job)["state"] == "completed"
    finally:
        webui.post("/sdapi/v1/options", {"unziplora_images_first": True})
