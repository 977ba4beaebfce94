"""python -m benchmarks.saving [--folder F]: a state at SDXL's size, and how long its saving takes.

A signal that ends the program waits for that: the state of 560 layers at rank 64 with both branches
and their moments, random numbers, written, flushed to the disk and renamed by the code of a run.
Memory: 2.4 GB. No model is loaded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import described
from unziplora.method.prompts import BRANCHES
from unziplora.testing.random_checkpoint import FULL, meta_models
from unziplora.training.run_folder import RunFolder
from unziplora.unet.attach import layer_shapes

MOMENTS = {"fp32 (plan full)": torch.float32, "8 bits (other plans)": torch.uint8}
BLOCK = 256  # numbers of an 8-bit moment that share a scale


class _State:
    """What a run's folder asks of a trainer."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def tensors(self) -> dict[str, Tensor]:
        return self._tensors

    def numbers(self) -> dict[str, Any]:
        return {"step": 1, "updates": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rank", type=int, default=64)
    given = parser.parse_args()
    shapes = layer_shapes(meta_models("sdxl", FULL, 1024)["unet"])
    print(f"{len(shapes)} layers, rank {given.rank}; {described()}")
    for name, dtype in MOMENTS.items():
        state = _State(random_state(shapes, given.rank, dtype))
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            run = RunFolder(Path(folder))
            seconds = []
            for _ in range(3):
                began = time.monotonic()
                run.save_state(state, "pair")  # type: ignore[arg-type]
                seconds.append(time.monotonic() - began)
            size = run.state.stat().st_size
        text = ", ".join(f"{one:.1f}" for one in seconds)
        print(f"moments in {name}: {size / 1e9:.2f} GB, saved in {text} s", flush=True)
    return 0


def random_state(
    shapes: dict[str, tuple[int, int]], rank: int, moments: torch.dtype
) -> dict[str, Tensor]:
    tensors = {}
    for layer, (outputs, inputs) in shapes.items():
        for branch in BRANCHES:
            for part, shape in (("down", (rank, inputs)), ("up", (outputs, rank))):
                name = f"{layer}:{branch}:{part}"
                tensors[name] = torch.rand(shape)
                for moment in ("first", "second"):
                    tensors[f"{name}:{moment}"] = torch.rand(shape).mul_(255).to(moments)
                    if moments == torch.uint8:
                        scales = -(-tensors[name].numel() // BLOCK)
                        tensors[f"{name}:{moment}:scales"] = torch.rand(scales)
            tensors[f"{layer}:{branch}:mask"] = torch.ones(inputs)
            tensors[f"{layer}:{branch}:merger"] = torch.rand(inputs)
    return tensors


if __name__ == "__main__":
    sys.exit(main())
