"""python -m benchmarks.memory [--json FILE] [--only ARCHITECTURE ...] [--corners] [--real PLAN]

The simulated peak of one training step for each architecture, resolution, rank and plan
(benchmarks/simulate_memory.py): bf16 base, everything else as the plan has it, attention fused.
With --json unziplora/training/memory.json it writes the table that the planner reads. --corners
leaves out the middle rank and resolution, between which the peak is a straight line.

--real PLAN runs real steps of full size on this machine, on random weights, and compares the
process's peak with the simulation: by default SDXL at 1024 px, minutes a step and as many GB as the
plan needs and 1 more (lowest 6: on a CPU the originals stay); the first architecture of --only, and
--resolution, where they are given.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import described, resident, write
from unziplora.training.memory_plans import PLANS

if TYPE_CHECKING:
    from benchmarks.simulate_memory import Simulated

ARCHITECTURES = ("sdxl", "ssd-1b", "vega", "koala-1b", "koala-700m")
RESOLUTIONS = (512, 768, 1024)
RANKS = (16, 32, 64)
# SDXL, 1024 px, rank 64
BARS = {"full": 12.2, "selective": 9.4, "checkpoint": 7.4, "low": 6.3, "lowest": 3.7}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--corners", action="store_true")
    parser.add_argument("--real", choices=PLANS, metavar="PLAN")
    parser.add_argument("--resolution", type=int, default=1024, help="of --real")
    parser.add_argument("--steps", type=int, default=2, help="of --real")
    args = parser.parse_args(arguments)
    print(described())
    if args.real is not None:
        result = compared(args.only[0], args.resolution, args.real, args.steps)
        print(json.dumps(result, indent=1))
        write(args.json, result)
        return 0
    rows = _kept(args.json, args.only)
    step = 2 if args.corners else 1
    places = list(itertools.product(PLANS, RESOLUTIONS[::step]))
    for architecture in args.only:
        for plan, resolution in places:
            for found in rows_of(architecture, resolution, RANKS[::step], plan):
                rows.append(found)
                print(line(found), flush=True)
        write(args.json, {"rows": rows})
    missed = [r for r in rows if (bar := _bar(r)) is not None and r["peak_gb"] > bar]
    return 1 if missed else 0


def rows_of(
    architecture: str, resolution: int, ranks: Sequence[int], plan: str
) -> Iterator[dict[str, Any]]:
    """A row for each rank. Where gradients are never there together, what a step works with hardly
    depends on the rank (at most 7 MB in SDXL): it is simulated for the largest."""
    from benchmarks.simulate_memory import Simulated, held_bytes, simulate

    known = None
    if PLANS[plan].in_backward:
        largest = simulate(architecture, resolution, max(ranks), plan)
        known = largest.peak - largest.held
    for rank in ranks:
        if known is None:
            found = simulate(architecture, resolution, rank, plan)
        else:
            held = held_bytes(architecture, resolution, rank, plan)
            found = Simulated(held, held + known)
        yield _row(architecture, resolution, rank, plan, found)


def _row(
    architecture: str, resolution: int, rank: int, plan: str, found: Simulated
) -> dict[str, Any]:
    """working_gb: what is there at the peak beside base weights, LoRAs and moments."""
    return {
        "architecture": architecture,
        "resolution": resolution,
        "rank": rank,
        "plan": plan,
        "peak_gb": round(found.peak / 1e9, 4),
        "working_gb": round((found.peak - found.held) / 1e9, 4),
    }


def line(found: dict[str, Any]) -> str:
    bar = _bar(found)
    limit = "" if bar is None else f"   (at most {bar} wanted)"
    return (
        f"{found['architecture']:<11} {found['resolution']:>4} px  rank {found['rank']:>2}  "
        f"{found['plan']:<10} {found['peak_gb']:6.2f} GB{limit}"
    )


def _bar(found: dict[str, Any]) -> float | None:
    wanted = ("sdxl", 1024, 64)
    place = (found["architecture"], found["resolution"], found["rank"])
    return BARS.get(found["plan"]) if place == wanted else None


def _kept(path: Path | None, renewed: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the other architectures in a table that is there already."""
    if path is None or not path.exists():
        return []
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return [row for row in rows if row["architecture"] not in renewed]


def compared(architecture: str, resolution: int, plan: str, steps: int) -> dict[str, Any]:
    """Peak of this process over real steps against the simulation of the same, rank 64."""
    import torch

    from benchmarks.simulate_memory import real_trainer, simulate

    expected = simulate(architecture, resolution, 64, plan).peak
    _give_back_freed_memory()
    before = resident()  # program and libraries
    trainer = real_trainer(architecture, resolution, 64, plan)
    if trainer.plan.fp8_base:  # beside which a CPU keeps the originals
        weights = (p for p in trainer.host.unet.parameters() if p.ndim > 1)
        expected += sum(weight.numel() * weight.element_size() for weight in weights)
    seconds = []
    with trainer.plan.on(trainer.host.unet, trainer.attachment), _watched() as peak:
        for _ in range(steps):
            began = time.monotonic()
            trainer.advance()
            seconds.append(round(time.monotonic() - began, 1))
    return {
        "architecture": architecture,
        "resolution": resolution,
        "plan": plan,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "program_gb": round(before / 1e9, 3),
        "peak_gb": round((peak[0] - before) / 1e9, 3),
        "simulated_gb": round(expected / 1e9, 3),
        "ratio": round((peak[0] - before) / expected, 3),
    }


def _give_back_freed_memory() -> None:
    """Makes glibc return every freed tensor to the system at once.

    By itself it raises its threshold for that up to 32 MB, and then keeps the holes between tensors
    (2 GB of SDXL's step at 512 px), which are its own affair and nothing that a step holds.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc: its keeping is counted
        return
    mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
    mallopt(_M_TRIM_THRESHOLD, 0)


@contextlib.contextmanager
def _watched() -> Iterator[list[int]]:
    """The process's highest resident memory meanwhile, in bytes, looked at every 50 ms."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
