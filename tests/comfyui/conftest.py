"""Shared by the tests of the real ComfyUI: checkpoints and one started program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.comfyui.programs import ComfyUI, place
from tests.hosts.checkpoints import miniature, random_model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A random SDXL of the full topology, and the miniature."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [random_model(folder), miniature(folder)]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of 160 x 160 pixels with colours everywhere."""
    image = Image.linear_gradient("L").resize((160, 160))
    image = Image.merge("RGB", (image, image.rotate(90), image.rotate(180)))
    path = tmp_path_factory.mktemp("image") / "cat.png"
    image.save(path)
    return path


@pytest.fixture(scope="session")
def comfyui(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, source: Path
) -> Iterator[ComfyUI]:
    """A started ComfyUI. Every test leaves it with nothing running."""
    place()
    checkpoints = request.getfixturevalue("checkpoints")
    with ComfyUI(tmp_path_factory.mktemp("comfyui"), checkpoints) as started:
        started.place_image(source)
        yield started
