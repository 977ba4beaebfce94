"""python -m benchmarks.quality --part gates|choose|decide|final [--json FILE] [--out DIR]
python -m benchmarks.quality --quick

gates     which images offer something to learn; every other part starts with it
choose    the learning rate of each method, by alignment alone, on six images: chosen.json
decide    variants of unziplora on the same images (fold, importance, start of B, ...)
final     all methods with what was chosen, on sixteen other images and two seeds: the table
--quick   unziplora and dreambooth on three of choose's images: for whoever changes the method

--ungated runs on images that fail their gates as well, and says that nothing is decided by it.

Trainings and samples are kept in --cache (a cache belongs to one model); a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quality import report
from benchmarks.quality.gates import headroom_text
from benchmarks.quality.parts import QUICK, VARIANTS, choose, decide, final, gated, workers
from benchmarks.quality.targets import WANTED
from unziplora import mini
from unziplora.method.methods import METHODS

QUICK_METHODS = ("unziplora", "dreambooth")
CANNOT_TELL = (
    f"{QUICK} images and one seed: a difference below 0.15 may be chance, and whether a change is "
    "better than what was before is for --part decide. What this shows is whether training still "
    "moves what it should: lifts above 0, and less style in content's images than dreambooth's."
)

UNGATED = (
    "Images that failed their gates were used: there is little to gain on them, whatever the "
    "method does. Nothing is decided by these numbers."
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("gates", "choose", "decide", "final"), default="final")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ungated", action="store_true", help="also images without headroom")
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--cache", type=Path, default=Path("quality-cache"))
    parser.add_argument("--out", type=Path, help="folder for the figure and the sample sheets")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=None)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    on = "final" if given.part == "final" and not given.quick else "choose"
    seeds = [0] if given.quick else list(range(given.seeds))
    methods = given.methods or (QUICK_METHODS if given.quick else list(METHODS))
    with workers(given.workers, given.model, given.cache) as pool:
        targets, rooms = gated(pool, on, given.ungated)
        print(headroom_text(rooms))
        result: dict[str, Any] = {"gates": [asdict(room) for room in rooms]}
        if given.quick:
            targets = targets[:QUICK]
        elif len(targets) < WANTED[on]:
            print(
                f"Only {len(targets)} of the {WANTED[on]} images that are wanted: errors are wide."
            )
        if given.part != "gates" and len(targets) < 2:
            raise SystemExit(
                "Fewer than two images offer something to learn on this model, so nothing was "
                "trained. The gates above say what is missing; --ungated runs all the same."
            )
        if given.quick or given.part == "final":
            result |= final(pool, targets, seeds, methods)
        elif given.part == "choose":
            result |= choose(pool, targets, seeds, methods)
        elif given.part == "decide":
            result |= decide(pool, targets, seeds, given.variants)
    if given.quick or given.part != "gates":
        print(report.as_text("final" if given.quick else given.part, result))
    if given.quick:
        print("\n" + CANNOT_TELL)
    if given.ungated:
        print("\n" + UNGATED)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if given.out is not None and given.part == "final" and not given.quick:
        given.out.mkdir(parents=True, exist_ok=True)
        report.figure(result["table"], given.out / "alignment-and-leak.png")
        report.sheets(given.cache, result["chosen"], targets, given.out)


if __name__ == "__main__":
    main()
