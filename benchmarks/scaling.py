"""python -m benchmarks.scaling [--json FILE]

Step time and memory against rank and resolution, which should be straight lines, and memory against
the number of steps, which should be flat. Time: KOALA-700M's topology at widths 64/128/256, fp32,
medians of alternating trials. Memory against rank and resolution: simulated, full-size SDXL, plan
checkpoint. Memory against steps: this process's, while a run of the same small model goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch

from benchmarks.results import described, resident, write
from benchmarks.simulate_memory import real_trainer, simulate
from benchmarks.timing import alternating
from unziplora.testing.random_checkpoint import Widths
from unziplora.training.trainer import Trainer

SMALL = Widths(unet=(64, 128, 256), text=(256, 256))
RANKS, RESOLUTIONS = (8, 16, 32, 64), (256, 384, 512, 640)
SIMULATED_RANKS, SIMULATED_RESOLUTIONS = (16, 32, 64, 128), (512, 768, 1024, 1280)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Step time and memory against a run's size.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args(arguments)
    print(described())
    result = {
        "seconds_by_rank": line(RANKS, _seconds([(256, r) for r in RANKS], args.trials)),
        "seconds_by_pixels": line(
            [r * r for r in RESOLUTIONS], _seconds([(r, 16) for r in RESOLUTIONS], args.trials)
        ),
        "gb_by_rank": line(SIMULATED_RANKS, [_gb(1024, r) for r in SIMULATED_RANKS]),
        "gb_by_pixels": line(
            [r * r for r in SIMULATED_RESOLUTIONS], [_gb(r, 64) for r in SIMULATED_RESOLUTIONS]
        ),
        "gb_by_step": resident_over(args.steps),
    }
    for name, value in result.items():
        print(name, value)
    write(args.json, result)
    return 0


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """The points, and how far the worst of them lies from the straight line through all, as a
    share of its value."""
    slope, start = linear_regression(x, y)
    off = max(abs(slope * a + start - b) / b for a, b in zip(x, y, strict=True))
    points = {str(a): round(b, 4) for a, b in zip(x, y, strict=True)}
    return {"points": points, "slope": slope, "start": round(start, 4), "off": round(off, 4)}


def _seconds(places: Sequence[tuple[int, int]], trials: int) -> list[float]:
    """Median seconds of a step at each (resolution, rank)."""
    works = {}
    for resolution, rank in places:
        trainer = _small(resolution, rank)
        trainer.advance()
        works[f"{resolution} {rank}"] = trainer.advance
    return [median(taken) for taken in alternating(works, trials).values()]


def _gb(resolution: int, rank: int) -> float:
    return simulate("sdxl", resolution, rank, "checkpoint").peak / 1e9


def resident_over(steps: int) -> dict[str, float]:
    """GB of this process after a few steps and after many, windows and selections among them."""
    trainer = _small(256, 16)
    found = {}
    for done in range(1, steps + 1):
        trainer.advance()
        if done in (steps // 10, steps):
            found[str(done)] = round(resident() / 1e9, 4)
    return found


def _small(resolution: int, rank: int) -> Trainer:
    return real_trainer("koala-700m", resolution, rank, "full", widths=SMALL, dtype=torch.float32)


if __name__ == "__main__":
    raise SystemExit(main())
