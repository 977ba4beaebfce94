"""python -m benchmarks.throughput [--images 4] [--steps 30] [--json FILE]

Images an hour on the miniature: a worker that keeps the model against a new process for each image,
and two workers; then the same over up to 64 workers, simulated from the parts of one run
(simulate_batch.py) with the rate of a shared disk as the limit.

Seconds are processor time of the workers, so that other programs are not counted: images an hour
are those of a machine with a free core for each worker. The table of SDXL takes a step's seconds
from --step, which a `unziplora train` on the GPU in question shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import described, write
from benchmarks.simulate_batch import Parts, Rate, scaling
from unziplora import mini

ROOT = Path(__file__).parent.parent
GB = 1e9
# SDXL, rank 64: fp16 file; two branches with two moments each in fp32; two fp16 files
SDXL = {"model_bytes": 6.94 * GB, "state_bytes": 2.2 * GB, "pair_bytes": 0.37 * GB}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Images an hour, measured and simulated.")
    add = parser.add_argument
    add("--images", type=int, default=4)
    add("--steps", type=int, default=30)
    add("--resolution", type=int, default=64)
    add("--step", type=float, default=1.0, metavar="SECONDS", help="of SDXL on your GPU (1.0)")
    add("--load", type=float, default=20.0, metavar="SECONDS", help="of SDXL, after reading (20)")
    add("--disk", type=float, default=1.0, metavar="GB/S", help="the shared disk writes (1.0)")
    add("--skip-measuring", action="store_true", help="only SDXL's table")
    add("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    print(described())
    result: dict[str, Any] = {}
    if not given.skip_measuring:
        result["measured"] = measured(given.images, given.steps, given.resolution)
        for name, value in result["measured"].items():
            print(f"{name}: {value}")
        parts = parts_of_a_run(given.steps, given.resolution)
        result["parts"] = vars(parts)
        print(parts)
        result["miniature"] = _shown("the miniature", scaling(parts, given.disk * GB))
    for minutes in (5.0, 30.0):
        sdxl = Parts(given.load, 5.0, given.step, 5.0, save_minutes=minutes, **SDXL)
        title = (
            f"SDXL at {given.step:g} s a step, a state every {minutes:g} minutes, "
            f"{sdxl.bytes_written() / GB:.1f} GB written an image, disk {given.disk:g} GB/s"
        )
        result[f"sdxl, {minutes:g} minutes"] = _shown(title, scaling(sdxl, given.disk * GB))
    write(given.json, result)
    return 0


def measured(images: int, steps: int, resolution: int) -> dict[str, Any]:
    """Processor seconds of `images` runs in three ways, and images an hour from them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = "".join(f"{mini.IMAGE},{mini.SUBJECT},{mini.STYLE},{n}\n" for n in range(images))
        manifest = place / "jobs.csv"
        manifest.write_text(f"image,subject,style,name\n{rows}", "utf-8")
        size = ["--steps", str(steps), "--resolution", str(resolution), "--model", "mini"]
        train = ["train", str(mini.IMAGE), "--subject", mini.SUBJECT, "--style", mini.STYLE, *size]
        reloaded = [
            _seconds([*train, "--out", str(place), "--name", f"single-{n}"]) for n in range(images)
        ]
        batch = ["batch", str(manifest), *size]
        kept = {
            workers: _seconds([*batch, "--out", str(place / f"{workers}"), "--workers",
                               f"local:{workers}"])
            for workers in (1, 2)
        }  # fmt: skip
        idle = _seconds([*batch, "--out", str(place / "1")])  # nothing left to do: the driver alone
    found: dict[str, Any] = {
        "a new process for each": _row(sum(cpu for cpu, _ in reloaded), images, 1),
        "seconds by the wall": {
            "a new process for each": round(sum(wall for _, wall in reloaded), 1),
            **{f"{workers} workers": round(wall, 1) for workers, (_, wall) in kept.items()},
        },
        "nothing left to do": {"processor seconds": round(idle[0], 1)},
    }
    for workers, (cpu, _) in kept.items():
        found[f"{workers} workers"] = _row(cpu, images, workers)
    return found


def _row(cpu: float, images: int, workers: int) -> dict[str, float]:
    return {
        "processor seconds": round(cpu, 1),
        "images an hour with a free core each": round(3600 * images * workers / cpu, 1),
    }


def _seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Of a command and its children: processor time and the wall's."""
    began, wall = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "unziplora", *arguments],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    ended = os.times()
    cpu = ended.children_user - began.children_user + ended.children_system - began.children_system
    return cpu, time.perf_counter() - wall


def parts_of_a_run(steps: int, resolution: int) -> Parts:
    """Of the miniature, in this process; processor seconds."""
    import unziplora
    from unziplora.hosts.standalone.host import StandaloneHost
    from unziplora.training.events import Finished, StepDone

    clock = time.process_time
    began = clock()
    host = StandaloneHost.open(mini.MODEL)
    load, began = clock() - began, clock()
    with tempfile.TemporaryDirectory() as folder:
        run = unziplora.train(
            mini.IMAGE, subject=mini.SUBJECT, style=mini.STYLE, host=host, out=folder,
            settings={"steps": steps, "resolution": resolution, "keep_state": True},
        )  # fmt: skip
        at: list[float] = []
        for event in run:
            if isinstance(event, StepDone):
                at.append(clock())
            elif isinstance(event, Finished):
                finish = clock() - at[-1]
        step = median(later - sooner for sooner, later in pairwise(at))
        pair = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        state = run.folder.state.stat().st_size
    encode = max(0.0, at[0] - began - step)
    size = mini.MODEL.stat().st_size
    return Parts(load, encode, step, finish, size, state, pair, steps=steps)


def _shown(title: str, rates: Sequence[Rate]) -> list[dict[str, Any]]:
    print(
        f"\n{title}\n| workers | images an hour | of as many alone | disk busy |\n|---|---|---|---|"
    )
    for rate in rates:
        print(
            f"| {rate.workers} | {rate.images_per_hour:.1f} | {rate.efficiency:.0%} | "
            f"{rate.disk_busy:.0%} |"
        )
    return [vars(rate) for rate in rates]


if __name__ == "__main__":
    raise SystemExit(main())
