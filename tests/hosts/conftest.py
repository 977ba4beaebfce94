"""Shared by the tests of real WebUIs: checkpoints, an image, one started WebUI of each kind, a
pair that it trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.hosts.checkpoints import miniature, random_model
from tests.hosts.pairs import state
from tests.hosts.programs import KINDS, WebUI, place
from tests.hosts.visitor import Visitor


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A random SDXL of the full topology, and the miniature."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [random_model(folder), miniature(folder)]


@pytest.fixture(scope="session")
def source_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn image of 160 x 160 pixels."""
    image = Image.new("RGB", (160, 160), "ivory")
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 50, 120, 130), fill="crimson", outline="black", width=4)
    draw.polygon(((50, 65), (55, 30), (80, 52)), fill="crimson", outline="black")
    draw.polygon(((110, 65), (105, 30), (80, 52)), fill="crimson", outline="black")
    path = tmp_path_factory.mktemp("image") / "cat.png"
    image.save(path)
    return path


@pytest.fixture(scope="session", params=KINDS)
def webui(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[Path],
) -> Iterator[WebUI]:
    """A started WebUI with its API on. Every test leaves it with nothing running."""
    place(request.param)
    with WebUI(request.param, tmp_path_factory.mktemp(request.param), checkpoints) as started:
        yield started


@pytest.fixture(scope="session")
def first_pair(webui: WebUI, source_image: Path) -> Any:
    """A first pair, trained in a WebUI that has drawn nothing with a LoRA yet."""
    run = webui.train("first", source_image)
    assert run["state"] == "completed", run
    return run


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


@pytest.fixture
def held(webui: WebUI) -> Iterator[None]:
    """A run stands still after its first step, until `WebUI.hold` names another or none."""
    webui.hold(1)
    yield
    webui.hold()


@pytest.fixture(scope="module")  # its event loop would be in the way of other tests' own
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("UNZIPLORA_CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.skip("There is no Chromium: UNZIPLORA_CHROMIUM does not say where.")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visitor(webui: WebUI, browser: Any) -> Iterator[Visitor]:
    visitor = Visitor(browser, webui)
    yield visitor
    toasts = visitor.page.evaluate("() => window.toasts")
    visitor.page.close()
    # gradio 3's queue gives a page five seconds to say who it is (gradio/routes.py:604), which one
    # that is just opened on a busy computer may miss
    assert not [toast for toast in toasts if "Connection errored out" not in toast]
    assert not [error for error in visitor.errors if "unzip" in error.lower()]
