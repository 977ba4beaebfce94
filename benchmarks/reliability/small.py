"""The host of docs/extending.md, small enough to train in a second, and a run on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import unziplora
from unziplora.training.run import Run

_PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SETTINGS: dict[str, Any] = {
    "steps": 6, "name": "pair", "rank": 2, "lr": 1e-3, "resolution": 64, "window": 1,
}  # fmt: skip


def host_maker() -> Callable[[], Any]:
    """Makes the documented host, each time with the same weights."""
    import torch

    code = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(code, names)

    def make() -> Any:
        torch.manual_seed(0)
        return names["MyHost"](names["small_unet"]())

    return make


def image() -> Image.Image:
    image = Image.new("RGB", (96, 80), "ivory")
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill="crimson", outline="black", width=3)
    return image


def begin(host: Any, out: Path, *, overwrite: bool = False, **settings: Any) -> Run:
    """A run of six steps, unless set otherwise."""
    out.mkdir(parents=True, exist_ok=True)
    path = out.with_name(out.name + ".png")
    image().save(path)
    args = {**SETTINGS, **settings}
    return unziplora.train(
        path, subject="cat", style="ink", host=host, settings=args, out=out, overwrite=overwrite
    )
