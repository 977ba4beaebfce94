"""Shared by the tests of real WebUIs: checkpoints, an image, one started WebUI of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.hosts.checkpoints import miniature, random_model
from tests.hosts.programs import KINDS, WebUI, place


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
