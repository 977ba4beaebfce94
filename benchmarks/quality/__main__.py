"""python -m benchmarks.quality --part PART [--json FILE] [--out DIR]
python -m benchmarks.quality --quick

gates     which images offer something to learn; every other part starts with it
choose    the learning rate of each method, by alignment alone, on six images: chosen.json
decide    variants of unziplora on the same images (fold, importance, start of B, ...); with
          --images final on final's, where a default may change
fewer     unziplora in 75 and 150 steps, each at a rate that choose's images prefer, less 600 steps:
          on final's images
final     all methods with what was chosen, on sixteen other images and two seeds: the table
where     choose's images: which attention groups hold what m1's LoRAs have learned
merge     final's images: both LoRAs of unziplora's pairs, and dreambooth's merged in each way
--quick   unziplora and dreambooth on three of choose's images: for whoever changes the method

--ungated runs on images that fail their gates as well, and says that nothing is decided by it.

Trainings and samples are kept in --cache, and scores in --measured, a small file from which another
machine can go on: a run that was stopped continues where it was. Neither counts for another model,
another code of the method or other defaults.
--quick keeps and reads nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.quality import report
from benchmarks.quality.gates import headroom_text
from benchmarks.quality.parts import (
    CHOSEN,
    METHODS,
    OWN,
    QUICK,
    choose,
    decide,
    fewer,
    final,
    gated,
    merge,
    where,
)
from benchmarks.quality.targets import PARTS, WANTED, Target, check_drawings
from benchmarks.quality.variants import VARIANTS
from benchmarks.quality.workers import Workers
from unziplora import mini

# whose images each part uses
GATED_AS = {"gates": "choose", "choose": "choose", "decide": "choose", "where": "choose",
            "final": "final", "merge": "final", "fewer": "final"}  # fmt: skip
MEASURED = Path(__file__).parent / "measured.jsonl"
QUICK_METHODS = ("unziplora", "dreambooth")
QUICK_LIMITS = (
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
    parser.add_argument("--part", choices=tuple(GATED_AS), default="final")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ungated", action="store_true", help="also images without headroom")
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--cache", type=Path, default=Path("quality-cache"))
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--out", type=Path, help="folder for sample sheets, and final's figure")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=None)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=None)
    images = "whose images, in gates, decide and where: final's instead of choose's"
    parser.add_argument("--images", choices=tuple(PARTS), help=images)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    _refuse_unread(parser, args)
    if args.out and find_spec("matplotlib") is None:
        parser.error("--out draws a figure with matplotlib: pip install '.[bench]'")
    return args


def _refuse_unread(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where an option was given that the part does not read."""
    if args.images and args.part not in ("gates", "decide", "where"):
        parser.error(f"--images cannot be given for {args.part}, which has images of its own")
    if args.methods and args.part in ("gates", "decide", "where"):
        parser.error(f"--methods cannot be given for {args.part}, which has methods of its own")
    if args.variants and (args.quick or args.part != "decide"):
        parser.error("--variants are compared by --part decide, and by nothing else")
    if args.out and (args.quick or args.part not in ("final", "decide")):
        parser.error("--out draws what final and decide compare, and nothing else")


def main() -> None:
    args = arguments()
    check_drawings()
    part = "final" if args.quick else args.part
    _check_rates(part, _methods(args))
    with ExitStack() as on:
        work = _workers(args, on)
        targets, rooms = gated(work, _images(args), args.ungated)
        targets = targets[:QUICK] if args.quick else targets
        print(headroom_text(rooms))
        _check_targets(args, part, len(targets))
        result = {"gates": [asdict(room) for room in rooms], **_run(args, part, work, targets)}
    if part != "gates":
        print(report.as_text(part, result))
    if args.quick:
        print("\n" + QUICK_LIMITS)
    if args.ungated:
        print("\n" + UNGATED)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        if part == "final":
            report.figure(result["table"], args.out / "alignment-and-leak.png")
        report.sheets(work.cache, _compared(part, result), targets, args.out)


def _compared(part: str, result: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """(method, settings) of each row of the sheets."""
    chosen = result["chosen"]
    if part == "decide":
        return {name: (OWN, {**chosen, **VARIANTS[name]}) for name in result["seconds"]}
    return {method: (method, settings) for method, settings in chosen.items()}


def _methods(args: argparse.Namespace) -> Sequence[str]:
    return args.methods or (QUICK_METHODS if args.quick else METHODS)


def _images(args: argparse.Namespace) -> str:
    if args.quick:
        return "choose"
    return args.images or GATED_AS[args.part]


def _check_rates(part: str, methods: Sequence[str]) -> None:
    """Ends the program where the final table wants a rate that was never chosen."""
    unknown = [method for method in methods if method not in json.loads(CHOSEN.read_text("utf-8"))]
    if GATED_AS[part] == "final" and unknown:
        raise SystemExit(
            f"No learning rate is chosen for {', '.join(unknown)}. Run --part choose first, or "
            "name the other methods with --methods."
        )


def _workers(args: argparse.Namespace, on: ExitStack) -> Workers:
    """With --quick they know nothing of before: what was measured before a change would be taken
    for it."""
    if args.quick:
        cache = Path(on.enter_context(tempfile.TemporaryDirectory()))
        return on.enter_context(closing(Workers(args.workers, args.model, cache)))
    kept = args.measured
    return on.enter_context(closing(Workers(args.workers, args.model, args.cache, kept)))


def _check_targets(args: argparse.Namespace, part: str, count: int) -> None:
    """Ends the program where there is too little to train on."""
    wanted = QUICK if args.quick else WANTED[_images(args)]
    if count < wanted:
        print(f"Only {count} of the {wanted} images that are wanted: errors are wide.")
    if part != "gates" and count < 2:
        raise SystemExit(
            "Fewer than two images offer something to learn on this model, so nothing was "
            "trained. The gates above say what is missing; --ungated runs all the same."
        )


def _run(
    args: argparse.Namespace, part: str, work: Workers, targets: Sequence[Target]
) -> dict[str, Any]:
    """The result of one part, for the report."""
    seeds = [0] if args.quick else list(range(args.seeds))
    if part == "final":
        return final(work, targets, seeds, _methods(args))
    if part == "choose":
        return choose(work, targets, seeds, _methods(args))
    if part == "decide":
        return decide(work, targets, seeds, args.variants or list(VARIANTS))
    if part == "fewer":
        return fewer(work, gated(work, "choose")[0], targets, seeds)
    if part == "where":
        return where(work, targets, seeds)
    if part == "merge":
        return merge(work, targets, seeds)
    return {}


if __name__ == "__main__":
    main()
