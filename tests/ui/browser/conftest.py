"""The real page in a real browser: `unziplora app` as a process, with each gradio that matters.

The test process drives Chromium; the page is served by the interpreters of `GRADIOS`, so that
gradio 3.41.2 and 4.40.0 may each live in an environment of their own (tools/test_ui.sh makes them).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ui.browser.pages import Page
from tests.waiting import until

# settings under which a run takes a moment
QUICK = {"rank": "2", "resolution": "64", "preview_every": "0"}
ROOT = Path(__file__).parents[3]
SHOTS = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# by name: the environment variable with the python that serves the page, or None for this one
GRADIOS = {
    "current": None,
    "4.40.0": "UNZIPLORA_GRADIO4_PYTHON",
    "3.41.2": "UNZIPLORA_GRADIO3_PYTHON",
}


@dataclass(frozen=True)
class Served:
    """A page that is being served. folder: where its pairs go."""

    url: str
    folder: Path
    gradio: str


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """What a failed test saw is kept as an image, and what the page said stands in the report."""
    outcome: Any = yield
    if call.when == "call" and outcome.get_result().failed:
        for page in item.funcargs.values():
            if isinstance(page, Page):
                page.shot(f"failed-{item.originalname}")
                outcome.get_result().sections.append(("the page", page.report()))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("UNZIPLORA_CHROMIUM") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    with sync_api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-gpu"]
            )
        except sync_api.Error:
            pytest.skip("there is no Chromium: install one, or name it in UNZIPLORA_CHROMIUM")
        yield made
        made.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the miniature's topology, which trains a step in a blink."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (the standalone extra)")
    from unziplora.testing.random_checkpoint import write_random_model

    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return write_random_model(path, architecture="mini", resolution=64)


@pytest.fixture(scope="module", params=list(GRADIOS))
def python(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The gradio's name and a python that has it."""
    variable = GRADIOS[request.param]
    if variable is None:
        if importlib.util.find_spec("gradio") is None:
            pytest.skip("gradio is not installed (the app extra)")
        return request.param, sys.executable
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} does not name a python with gradio {request.param}")
    return request.param, found


@pytest.fixture(scope="module")
def served(
    python: tuple[str, str], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """`unziplora app`, as a user starts it."""
    # in a folder of its own, because pairs are published beside it
    folder = tmp_path_factory.mktemp("app") / "loras"
    folder.mkdir()
    command = ["-m", "unziplora", "app", "--model", str(model), "--out", str(folder)]
    yield from serving(python, folder, command)


@pytest.fixture(scope="module")
def nested(
    python: tuple[str, str], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The page inside another, as a WebUI renders it."""
    folder = tmp_path_factory.mktemp("nested") / "loras"
    folder.mkdir()
    script = str(Path(__file__).parent / "nested_page.py")
    yield from serving(python, folder, [script, "--model", str(model), "--out", str(folder)])


def serving(python: tuple[str, str], folder: Path, command: list[str]) -> Iterator[Served]:
    """Starts the process, waits until it answers, and ends it afterwards."""
    port, log = free_port(), folder.parent / f"{folder.name}.log"
    process, url = start(python[1], folder, command, port, log)
    try:
        yield Served(url, folder, python[0])
        assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(
    interpreter: str, folder: Path, command: list[str], port: int, log: Path
) -> tuple[subprocess.Popen[bytes], str]:
    """A process that answers, and its address."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }  # fmt: skip
    with log.open("a") as out:
        process = subprocess.Popen(
            [interpreter, *command, "--port", str(port)], cwd=folder.parent, env=environment,
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: answers(url) or process.poll() is not None, pause=0.5)
        assert process.poll() is None, log.read_text()[-3000:]
    except BaseException:
        process.kill()
        raise
    return process, url


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=60).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def page(browser: Any, served: Served) -> Iterator[Page]:
    """One visitor for all tests of a gradio: to open the page costs more than what most of them do.
    Nothing may be fetched from elsewhere but gradio 3 and 4's own iframeResizer, which is not let
    through."""
    yield from visiting(browser, served)


@pytest.fixture(scope="module")
def nested_page(browser: Any, nested: Served) -> Iterator[Page]:
    yield from visiting(browser, nested)


def visiting(browser: Any, served: Served) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    visitor = Page(context.new_page(), served.url, SHOTS / f"gradio-{served.gradio}")
    visitor.open()
    yield visitor
    context.close()
    assert not visitor.errors, visitor.errors


@pytest.fixture
def train(page: Page, image_file: Path) -> Iterator[Any]:
    """Fills the Train tab and presses the button; at the end, what still goes on is stopped."""

    def train(name: str = "", steps: int = 4, **fields: str) -> None:
        page.tab("Train")
        page.image(image_file)
        page.fill("subject", "tree")
        page.fill("style", "flat drawing")
        page.fill("name", name)
        page.advanced(**{**QUICK, "steps": str(steps), **fields})
        page.click("train")

    yield train
    page.tab("Train")
    if page.page.locator("#uz_live [data-state=running]").count():
        page.stop()


@pytest.fixture
def trained(page: Page, served: Served, train: Any) -> Any:
    """Trains a pair of this name where there is none yet."""

    def trained(name: str) -> None:
        if not (served.folder / f"{name}_style.safetensors").exists():
            train(name)
            page.says("live", f"{name}[^-]")
            page.state("completed")

    return trained
