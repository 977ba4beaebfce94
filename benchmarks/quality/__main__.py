"""python -m benchmarks.quality --part choose|decide|final [--json FILE] [--out DIR]

choose    learning rate and steps of each method, from one grid, on four images: chosen.json
decide    variants of unziplora on the same four images (fold, importance, start of B, ...)
final     all methods with what was chosen, on eight other images and two seeds: the table

Trainings and samples are kept in --cache (a cache belongs to one model); a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.quality import report
from benchmarks.quality.parts import VARIANTS, choose, decide, final, workers
from benchmarks.quality.targets import PARTS
from unziplora import mini
from unziplora.method.methods import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("choose", "decide", "final"), default="final")
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--cache", type=Path, default=Path("quality-cache"))
    parser.add_argument("--out", type=Path, help="folder for the figure and the sample sheets")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    on = "final" if given.part == "final" else "choose"
    with workers(given.workers, given.model, given.cache) as pool:
        run, what = {
            "choose": (choose, given.methods),
            "decide": (decide, given.variants),
            "final": (final, given.methods),
        }[given.part]
        result = run(pool, on, list(range(given.seeds)), what)
    print(report.as_text(given.part, result))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if given.out is not None and given.part == "final":
        given.out.mkdir(parents=True, exist_ok=True)
        report.figure(result["table"], given.out / "alignment-and-leak.png")
        report.sheets(given.cache, result["chosen"], PARTS[on], given.out)


if __name__ == "__main__":
    main()
