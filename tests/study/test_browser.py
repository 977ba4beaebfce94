"""The study as participants meet it, two at once: with a mouse, a phone, or keys; and the
organiser."""

from __future__ import annotations

import csv
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.ui.browser.conftest import answers, browser
from tests.waiting import until
from unziplora.study.trials import QUESTIONS

pytest.importorskip("fastapi")
__all__ = ["browser"]  # the fixture

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "screenshots" / "study"
NAMES = ("cat", "fish", "house")
CLICKS = len(NAMES) * len(QUESTIONS)
DESKTOP: Mapping[str, Any] = {"viewport": {"width": 1200, "height": 900}}
PHONE: Mapping[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True,
    "device_scale_factor": 2,
}  # fmt: skip


@dataclass
class Study:
    """`unziplora study` as a process, and the links that it printed."""

    process: subprocess.Popen[str]
    links: list[str]
    results: str


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two methods' results of three images."""
    for method, colour in (("ours", "seagreen"), ("theirs", "firebrick")):
        for number, name in enumerate(NAMES):
            folder = tmp_path / method / "samples" / name
            for part in QUESTIONS.values():
                (folder / part).mkdir(parents=True)
                for sample in range(4):
                    _drawn(colour, number, sample).save(folder / part / f"{sample:02}.png")
            _drawn("black", number, 0).save(folder / "image.png")
    return [tmp_path / "ours", tmp_path / "theirs"]


def _drawn(colour: str, number: int, sample: int) -> Image.Image:
    image = Image.new("RGB", (256, 256), "ivory")
    place = (40 + 10 * sample, 40 + 20 * number, 200, 220)
    ImageDraw.Draw(image).ellipse(place, fill=colour, outline="black", width=4)
    return image


def start(folders: list[Path], port: int) -> Study:
    process = subprocess.Popen(
        [sys.executable, "-m", "unziplora", "study", *map(str, folders), "--participants", "2",
         "--port", str(port), "--answers", str(folders[0].parent / "study.sqlite")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(4)]
    links = re.findall(r"http://\S+", "".join(printed))
    assert until(lambda: answers(links[0]) or process.poll() is not None, pause=0.2)
    return Study(process, links[:2], links[2])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def study(folders: list[Path]) -> Iterator[Study]:
    started = start(folders, free_port())
    yield started
    started.process.terminate()
    started.process.wait()


def visit(browser: Any, link: str, device: Mapping[str, Any]) -> Any:
    page = browser.new_context(**device).new_page()
    page.goto(link)
    shown(page, 0)
    return page


def shown(page: Any, done: int) -> None:
    """Waits until so many questions are answered and every image of the next is there."""
    page.wait_for_function(
        """([done, total]) => document.getElementById('count').textContent === `${done} of ${total}`
        && [...document.images].every((image) => image.complete)""",
        arg=[done, CLICKS],
    )


def prefers_ours(page: Any) -> str:
    """The side with the green images."""
    return str(
        page.evaluate(
            """() => {
              const image = document.querySelector('#left img');
              const canvas = document.createElement('canvas');
              canvas.width = canvas.height = 256;
              const pen = canvas.getContext('2d');
              pen.drawImage(image, 0, 0);
              const [red, green] = pen.getImageData(128, 150, 1, 1).data;
              return green > red ? 'left' : 'right';
            }"""
        )
    )


def test_two_participants_answer_at_once_and_the_organiser_sees_both(
    browser: Any, study: Study
) -> None:
    mouse = visit(browser, study.links[0], DESKTOP)
    phone = visit(browser, study.links[1], PHONE)
    SHOTS.mkdir(parents=True, exist_ok=True)
    mouse.screenshot(path=SHOTS / "desktop.png")
    phone.screenshot(path=SHOTS / "phone.png")
    assert not phone.evaluate("() => document.documentElement.scrollWidth > innerWidth")
    for side in ("left", "right"):
        box = phone.locator(f"#{side}").bounding_box()
        assert box["y"] + box["height"] <= 844, "both sides are seen without scrolling"
    for done in range(CLICKS):
        shown(mouse, done)
        mouse.click(f"#{prefers_ours(mouse)}")
        shown(phone, done)
        phone.tap(f"#{prefers_ours(phone)}")
    for page in (mouse, phone):
        shown(page, CLICKS)
        assert page.inner_text("#question") == "That was all. Thank you!"
        assert page.locator("button:visible").count() == 0
    organiser = browser.new_context(**DESKTOP).new_page()
    organiser.goto(study.results)
    organiser.screenshot(path=SHOTS / "results.png")
    text = organiser.inner_text("body")
    assert "2 participants, 0 left out" in text
    assert text.count("100.0%") >= 3  # each question
    with organiser.expect_download() as download:
        organiser.click("text=CSV")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert len(rows) == 2 * CLICKS
    assert {row[row["side"]] for row in rows} == {"ours"}


def test_arrow_keys_and_the_tab_key_answer(browser: Any, study: Study) -> None:
    page = visit(browser, study.links[0], DESKTOP)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")  # at once: belongs to the same question, and is not taken
    shown(page, 1)
    for _ in range(4):  # where the focus is after a question is the browser's affair
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.id") == "right":
            break
    assert page.evaluate("() => document.activeElement.id") == "right"
    page.screenshot(path=SHOTS / "focus.png")
    page.keyboard.press("Enter")
    shown(page, 2)
    page.keyboard.press("ArrowUp")
    page.reload()
    shown(page, 2)


def test_answers_outlive_a_server_that_is_away(
    browser: Any, study: Study, folders: list[Path]
) -> None:
    page = visit(browser, study.links[0], DESKTOP)
    page.click("#left")
    shown(page, 1)
    study.process.terminate()
    study.process.wait()
    page.click("#left")
    page.wait_for_function("() => document.body.innerText.includes('The server does not answer')")
    port = int(study.links[0].split(":")[2].partition("/")[0])
    study.process = start(folders, port).process
    page.reload()
    shown(page, 1)
    page.click("#right")
    shown(page, 2)


def test_a_port_that_is_taken_is_one_sentence(folders: list[Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "unziplora", "study", *map(str, folders), "--port",
                   str(taken.getsockname()[1])]  # fmt: skip
        ended = subprocess.run(command, cwd=folders[0].parent, capture_output=True, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("unziplora: error:")
    assert "Choose another port" in ended.stderr
