"""A program that is killed while it trains: the page says so, and its run is not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.ui.browser.conftest import QUICK, SHOTS, free_port, start
from tests.ui.browser.pages import Page


def test_a_server_that_went_away_is_said_and_then_its_run_is_resumed(
    browser: Any, python: tuple[str, str], model: Path, image_file: Path, tmp_path: Path
) -> None:
    gradio, interpreter = python
    folder, port, log = tmp_path / "loras", free_port(), tmp_path / "log.txt"
    command = ["-m", "unziplora", "app", "--model", str(model), "--out", str(folder)]
    process, url = start(interpreter, tmp_path, command, port, log)
    page = Page(browser.new_page(), url, SHOTS / f"gradio-{gradio}")
    try:
        page.open()
        page.image(image_file)
        page.fill("subject", "tree")
        page.fill("style", "flat drawing")
        page.advanced(**QUICK, steps="9000")
        page.click("train")
        page.says("live", "[1-9][0-9]* of 9000 steps")
        page.click("save_now")
        page.says("message", "snapshot")
        page.says("live", "tree-flat-drawing")
        page.page.wait_for_timeout(2000)
        process.kill()
        process.wait()
        page.page.wait_for_selector("#uz_away.uz-shown")
        page.shot("server-away")
        process, _ = start(interpreter, tmp_path, command, port, log)
        page.page.wait_for_selector("#uz_away.uz-shown", state="hidden")
        page.says("live", "Unfinished runs[\\s\\S]*tree-flat-drawing")
        page.shot("unfinished")
        page.ask("resume tree-flat-drawing")
        page.state("running")
        page.says("live", "[1-9][0-9]* of 9000 steps")
        page.stop()
        page.state("stopped")
    finally:
        process.kill()
        process.wait()
