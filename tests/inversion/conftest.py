"""A tiny model, and short inversions on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.load import open_image
from unziplora.inversion.run import InversionRun
from unziplora.inversion.settings import InversionSettings
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths(unet=(32, 64, 64), text=(16, 24), layers=(1, 2))
QUICK: dict[str, Any] = {"steps": 5, "seeds": 2, "images": 2, "image_steps": 1, "lr": 0.05}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "koala.safetensors"
    return write_random_model(path, architecture="koala-700m", widths=TINY, resolution=64)


@pytest.fixture(scope="module")
def host(model: Path) -> StandaloneHost:
    return StandaloneHost.open(model, device="cpu")


@pytest.fixture
def run(image_file: Path, tmp_path: Path) -> Callable[..., InversionRun]:
    def make(**settings: Any) -> InversionRun:
        chosen = InversionSettings(**{"name": "tree", **QUICK, **settings})
        return InversionRun(open_image(image_file), chosen, tmp_path)

    return make
