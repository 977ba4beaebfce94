"""What tests share: a host small enough to train in a second, taken from docs/extending.md."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
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
SLOW = 2.0  # processor seconds, with the fixtures that a test is the first to need
SECONDS = "processor seconds"
# what a test module imports that makes its tests slow: checkpoints and UNets of full topology,
# other processes, the miniature
HEAVY = {"StandaloneHost", "write_random_model", "make_sgm_unet", "subprocess", "mini"}
HEAVY_FOLDERS = {"reliability", "benchmarks", "mini_world", "browser", "batch", "comfyui"}
BEGAN = pytest.StashKey[float]()


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and programs that tests
    start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what uses something that takes seconds, so that nobody has to keep a list."""
    for item in items:
        module = getattr(item, "module", None)
        heavy = not HEAVY.isdisjoint(vars(module) if module else ())
        if heavy or any(folder in item.path.parts for folder in HEAVY_FOLDERS):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[BEGAN] = processor_seconds()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    used = processor_seconds() - item.stash[BEGAN]
    if used > SLOW and item.get_closest_marker("slow") is None:
        item.user_properties.append((SECONDS, round(used, 1)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that have become too slow for the quick tier. Nothing fails: how long
    something takes is no question of right and wrong."""
    reports = [r for kind in terminalreporter.stats.values() for r in kind if hasattr(r, "when")]
    slow = {r.nodeid: dict(r.user_properties).get(SECONDS) for r in reports if r.when == "teardown"}
    slow = {name: used for name, used in slow.items() if used}
    if slow:
        terminalreporter.section(f"above {SLOW:g} {SECONDS} and not marked as slow")
        for name, used in sorted(slow.items()):
            terminalreporter.write_line(f"{used:6} {name}")


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def python_blocks(markdown: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", markdown.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="session")
def documented() -> dict[str, Any]:
    """The names that the first block of docs/extending.md defines."""
    names: dict[str, Any] = {}
    exec(python_blocks(ROOT / "docs" / "extending.md")[0], names)
    return names


@pytest.fixture(scope="session")
def make_host(documented: dict[str, Any]) -> Callable[[], Any]:
    """Builds the documented host with a fresh UNet of SDXL's eleven groups, the same each time."""
    return lambda: documented["MyHost"](documented["small_unet"]())


@pytest.fixture
def host(make_host: Callable[[], Any]) -> Any:
    return make_host()


def draw_image(path: Path) -> Path:
    """A drawn image of 160 x 120 pixels."""
    image = Image.new("RGB", (160, 120), "ivory")
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 20, 110, 90), fill="crimson", outline="black", width=3)
    draw.rectangle((70, 90, 90, 115), fill="saddlebrown")
    image.save(path)
    return path


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    return draw_image(tmp_path / "image.png")
