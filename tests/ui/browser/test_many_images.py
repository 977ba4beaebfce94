"""A list and its images, uploaded together: every line becomes a run, or every fault is listed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.ui.browser.conftest import Served
from tests.ui.browser.pages import Page
from tests.waiting import until

HEAD = "image,subject,style,name,steps,rank,resolution"


def upload(page: Page, *files: Path) -> None:
    """Into the list's field, until each has a link: gradio 3 shows the names earlier."""
    page.page.locator("#uz_manifest input[type=file]").first.set_input_files(files)
    page.page.wait_for_function(
        "count => document.querySelectorAll('#uz_manifest a[href]').length === count",
        arg=len(files),
    )


def test_a_list_with_faults_starts_nothing_and_a_whole_one_queues_all(
    page: Page, served: Served, tmp_path: Path
) -> None:
    images = []
    for name, colour in (("fox", "crimson"), ("boat", "navy")):
        images.append(tmp_path / f"{name}.png")
        Image.new("RGB", (64, 64), colour).save(images[-1])
    faulty, whole = tmp_path / "faulty.csv", tmp_path / "whole.csv"
    faulty.write_text(f"{HEAD}\nfox.png,fox,,,2,2,64\nmissing.png,boat,oil,,2,2,64\n")
    whole.write_text(f"{HEAD}\nfox.png,fox,ink,listed-fox,2,2,64\n"
                     "boat.png,boat,oil,listed-boat,2,2,64\n")  # fmt: skip

    page.open()
    page.page.locator("#uz_many").get_by_text("Many images").first.click()
    page.page.wait_for_selector("#uz_queue_all", state="visible")
    page.click("queue_all")
    page.says("manifest_message", "No list is chosen")
    upload(page, faulty, *images)
    page.click("queue_all")
    answer = page.says("manifest_message", "faulty.csv has 2 faults; nothing was started")
    assert [line[:9] for line in answer.splitlines()[1:]] == ["· line 2:", "· line 3:"]
    page.shot("many-images-faults")
    upload(page, whole, *images)
    page.click("queue_all")
    page.says("manifest_message", "2 runs are in the queue")
    page.shot("many-images")
    for name in ("listed-fox", "listed-boat"):
        until((served.folder / f"{name}_style.safetensors").exists, pause=0.5)
