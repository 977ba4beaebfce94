"""What tests share: a host small enough to train in a second, taken from docs/extending.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageDraw

settings.register_profile("unziplora", deadline=None)  # a busy computer is no fault
settings.load_profile("unziplora")
torch.set_num_threads(1)  # small tensors: more threads cost more than they give

ROOT = Path(__file__).parent.parent


def python_blocks(markdown: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", markdown.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="session")
def documented() -> dict[str, Any]:
    """The names that the first block of docs/extending.md defines."""
    names: dict[str, Any] = {}
    exec(python_blocks(ROOT / "docs" / "extending.md")[0], names)
    return names


@pytest.fixture
def host(documented: dict[str, Any]) -> Any:
    """The documented host with a fresh UNet of SDXL's eleven groups."""
    return documented["MyHost"](documented["small_unet"]())


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    """A drawn image of 160 x 120 pixels."""
    image = Image.new("RGB", (160, 120), "ivory")
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 20, 110, 90), fill="crimson", outline="black", width=3)
    draw.rectangle((70, 90, 90, 115), fill="saddlebrown")
    path = tmp_path / "image.png"
    image.save(path)
    return path
