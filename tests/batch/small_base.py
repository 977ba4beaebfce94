"""A base small enough to be opened in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import ROOT, python_blocks


class SmallBase:
    """The host of docs/extending.md, with the same weights in every process."""

    def open(self, threads: int) -> Any:
        import torch

        names: dict[str, Any] = {}
        exec(python_blocks(ROOT / "docs" / "extending.md")[0], names)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        return names["MyHost"](names["small_unet"]())

    def sampler(self, out: Path) -> None:
        return None
