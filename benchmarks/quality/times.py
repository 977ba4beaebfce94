"""python -m benchmarks.quality.times [--trials 2] [--steps 40] [--json FILE]

What an ordinary step of each variant of `--part decide` takes, against one of the defaults: short
trainings of the shipped miniature, one after the other, in every trial. Mean over the steps after
the first measuring window, so that what happens every few steps has its share; processor time, with
nothing else running and OMP_NUM_THREADS=1. Of several trials the fastest counts: what disturbs one
makes it slower.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.quality.parts import CHOSEN
from benchmarks.quality.variants import AS_CHOSEN, VARIANTS
from benchmarks.results import described, write
from benchmarks.speed import timed_steps
from unziplora import mini
from unziplora import python_api as api
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.load import open_image
from unziplora.training.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description="What a step of each variant takes.")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.trials < 1 or args.steps <= Settings.window:
        parser.error(f"--trials must be at least 1, and --steps at least {Settings.window + 1}")
    print(described())
    chosen = json.loads(CHOSEN.read_text("utf-8"))["unziplora"]
    host = StandaloneHost.open(mini.MODEL)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(args.trials):
        for name, own in VARIANTS.items():
            settings = {**chosen, **own, "steps": args.steps, "token": "sks"}
            seconds[name].append(_step(host, settings))
    default = seconds[AS_CHOSEN]
    found = {name: round(min(taken) / min(default), 3) for name, taken in seconds.items()}
    print(f"{AS_CHOSEN}: {1000 * min(default):.0f} ms a step")
    for name, taken in seconds.items():
        trials = ", ".join(f"{1000 * one:.0f}" for one in sorted(taken))
        print(f"{name:<44} {found[name]:.2f}   ({trials} ms)")
    write(args.json, {"seconds": seconds, "over_default": found})


def _step(host: StandaloneHost, settings: Mapping[str, Any]) -> float:
    """Mean seconds of the steps of one training after its first window."""
    masked = settings.get("mask_content", "off") != "off"
    image = replace(open_image(mini.IMAGE), mask=_mask() if masked else None)
    with tempfile.TemporaryDirectory() as out, timed_steps() as taken:
        run = api.train(
            image,
            subject=mini.SUBJECT,
            style=mini.STYLE,
            host=host,
            settings=dict(settings),
            out=Path(out),
        )
        for _ in run:
            pass
    return fmean(taken[run.settings.window :])


def _mask() -> Image.Image:
    """A disc; what a step takes does not depend on it."""
    mask = Image.new("L", Image.open(mini.IMAGE).size)
    width, height = mask.size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


if __name__ == "__main__":
    main()
