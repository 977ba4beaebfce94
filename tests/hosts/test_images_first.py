"""Images go first in the real WebUIs: asked for while a run trains, drawn between two steps."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.hosts.pairs import PROMPT, in_background, same, tensors
from tests.hosts.programs import WebUI


def queue_text(webui: WebUI, task: str) -> str:
    """What the page's progress bar says of a task."""
    answer = webui.post("/internal/progress", {"id_task": task, "live_preview": False})
    return str(answer.get("textinfo"))


def asked_for(webui: WebUI, prompt: str, number: int, said: str, **more: Any) -> Future[Any]:
    """An image that waits for the run, as the page's progress bar says."""
    task = f"task({said[:4]}-{number})"
    request = in_background(lambda: webui.draw(prompt, force_task_id=task, **more))
    webui.wait(lambda: said in queue_text(webui, task) or request.done())
    assert not request.done(), "the image was drawn before anybody saw it wait"
    return request


def test_an_image_is_drawn_between_two_steps_and_neither_changes_the_other(
    webui: WebUI, source_image: Path, first_pair: Any, untouched: None, held: None
) -> None:
    prompts = [PROMPT, f"{PROMPT} <lora:first_content:1>"]
    before = [webui.draw(prompt).tobytes() for prompt in prompts]
    job = webui.start("between", source_image, steps=6)
    for step, (prompt, expected) in enumerate(zip(prompts, before, strict=True), 1):
        webui.stands(job, step)
        request = asked_for(webui, prompt, step, "your image is next")
        webui.hold(step + 1)
        assert request.result().tobytes() == expected
        assert webui.run(job)["state"] == "running"
    webui.hold()
    run = webui.ended(job)
    assert run["state"] == "completed", run
    assert sum(event["type"] == "GivingWay" for event in run["events"]) == 2
    assert same(tensors(webui, "first"), tensors(webui, "between"))


def test_interrupt_is_about_the_image_that_waits(
    webui: WebUI, source_image: Path, untouched: None, held: None
) -> None:
    job = webui.start("continues", source_image)
    webui.stands(job, 1)
    request = asked_for(webui, PROMPT, 1, "your image is next", steps=150)
    webui.post("/sdapi/v1/interrupt")
    webui.hold(2)
    webui.wait(request.done)
    assert "150/150" not in webui.console(), "the image was drawn to its end"
    assert webui.run(job)["state"] == "running"
    webui.hold()
    assert webui.ended(job)["state"] == "completed"


def test_where_the_option_is_off_an_image_waits_for_the_run(
    webui: WebUI, source_image: Path, untouched: None, held: None
) -> None:
    webui.post("/sdapi/v1/options", {"unziplora_images_first": False})
    try:
        job = webui.start("alone", source_image, steps=4)
        webui.stands(job, 1)
        request = asked_for(webui, PROMPT, 1, "comes after it")
        webui.hold()
        request.result()
        run = webui.ended(job)
        assert run["state"] == "completed"
        assert not [event for event in run["events"] if event["type"] == "GivingWay"]
    finally:
        webui.post("/sdapi/v1/options", {"unziplora_images_first": True})
