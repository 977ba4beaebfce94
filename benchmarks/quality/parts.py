"""The parts of the benchmark: what is trained and sampled for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import report
from benchmarks.quality.gates import Headroom, by_faults, capacity, passing
from benchmarks.quality.runs import SECONDS, Job
from benchmarks.quality.scores import TOGETHER, alignment
from benchmarks.quality.targets import PARTS, WANTED, Target
from benchmarks.quality.variants import AS_CHOSEN, VARIANTS
from benchmarks.quality.workers import Workers
from unziplora.lora.merge_methods import MERGE_METHODS
from unziplora.method.blocks import FULL
from unziplora.method.methods import INSPIRATION_TREE
from unziplora.method.methods import METHODS as LORA_METHODS
from unziplora.method.prompts import BRANCHES
from unziplora.training.settings import PAPER_STEPS
from unziplora.unet.architectures import MINIATURE, family

CHOSEN = Path(__file__).parent / "chosen.json"
METHODS = (*LORA_METHODS, INSPIRATION_TREE)
# where a method's search for its rate begins: a best rate at the edge moves the edge outwards
RATES = dict.fromkeys(LORA_METHODS, (5e-4, 1e-3, 2e-3)) | {INSPIRATION_TREE: (2e-3, 4e-3, 8e-3)}
WIDENED = 5  # so many times at most
STEPS = 300  # of every method: rates are compared at one price
QUICK = 3  # targets
FREE = "m1"  # trains both LoRAs in all columns of all groups
OWN = "unziplora"  # whose pairs merges are compared with
OTHERS = "dreambooth"  # whose are merged
FEWER = (75, 150)  # steps that are compared with the paper's 600

Scores = dict[str, float]


def gated(work: Workers, part: str, ungated: bool = False) -> tuple[list[Target], list[Headroom]]:
    """The targets of a part that pass the gates, as many as wanted, and what was found of all.
    ungated: filled up with targets that do not pass, those with the fewest faults first."""
    found = work.headrooms(PARTS[part])
    targets = passing(found, PARTS[part])
    if ungated:
        poor = [t for t in by_faults(found, PARTS[part]) if t not in targets]
        targets = [*targets, *poor]
    return targets[: WANTED[part]], found


def choose(
    work: Workers, targets: Sequence[Target], seeds: Sequence[int], methods: Sequence[str]
) -> dict[str, Any]:
    """Each method's learning rate, by alignment alone, on six images: chosen.json."""

    def jobs(method: str, lr: float) -> list[Job]:
        return [Job(method, t, seeds[0], {"lr": lr, "steps": STEPS}) for t in targets]

    tried = _searched(work, {method: RATES[method] for method in methods}, jobs)
    known = json.loads(CHOSEN.read_text("utf-8")) if CHOSEN.exists() else {}
    found = {m: {"lr": best(tried, m)["lr"], "steps": STEPS} for m in methods}
    chosen = {**known, **found}
    CHOSEN.write_text(json.dumps(chosen, indent=2) + "\n", "utf-8")
    return {"grid": tried, "chosen": chosen, "at_edge": _at_edge(tried, methods)}


def fewer(
    work: Workers, choosing: Sequence[Target], targets: Sequence[Target], seeds: Sequence[int]
) -> dict[str, Any]:
    """UnZipLoRA in fewer steps, each at its best rate on `choosing`, less 600 steps at the model's
    own rate, on `targets`."""

    def jobs(name: str, lr: float) -> list[Job]:
        steps = int(name.split()[0])
        return [Job(OWN, t, seeds[0], {"lr": lr, "steps": steps}) for t in choosing]

    names = {f"{steps} steps": steps for steps in FEWER}
    tried = _searched(work, dict.fromkeys(names, (1e-3, 2e-3, 4e-3)), jobs)
    settings: dict[str, dict[str, Any]] = {"600 steps": {"steps": PAPER_STEPS}}
    for name, steps in names.items():
        settings[name] = {"lr": best(tried, name)["lr"], "steps": steps}
    found = {
        name: [
            scores
            for group in work.scored([[Job(OWN, t, s, own) for t in targets] for s in seeds])
            for scores in group
        ]
        for name, own in settings.items()
    }
    return {
        "grid": tried,
        "chosen": settings,
        "at_edge": _at_edge(tried, list(names)),
        "table": report.table(found, len(targets)),
        "differences": report.differences(found, "600 steps", len(targets)),
    }


def _searched(
    work: Workers,
    rates: Mapping[str, Sequence[float]],
    jobs: Callable[[str, float], Sequence[Job]],
) -> list[dict[str, Any]]:
    """The mean scores at each name's rates; a grid is widened until the best rate lies inside."""
    tried = _tried(work, jobs, [(name, lr) for name in rates for lr in rates[name]])
    for _ in range(WIDENED):
        more = [(name, lr) for name in rates for lr in next_rate(tried, name)]
        if not more:
            break
        tried += _tried(work, jobs, more)
    return tried


def _at_edge(tried: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    return [name for name in names if next_rate(tried, name)]


def best(tried: Sequence[dict[str, Any]], method: str) -> dict[str, Any]:
    """A method's row with the most alignment."""
    return max((r for r in tried if r["method"] == method), key=lambda r: float(r["alignment"]))


def next_rate(tried: Sequence[dict[str, Any]], method: str) -> list[float]:
    """The rate beyond the edge at which a method's best lies; none where it lies inside."""
    rates = sorted(row["lr"] for row in tried if row["method"] == method)
    found = best(tried, method)["lr"]
    if found == rates[0]:
        return [found / 2]
    return [found * 2] if found == rates[-1] else []


def _tried(
    work: Workers,
    jobs: Callable[[str, float], Sequence[Job]],
    cells: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:
    """The mean scores of each (name, learning rate)."""
    found = work.scored([jobs(*cell) for cell in cells], cross=False)
    return [
        {"method": name, "lr": lr, "alignment": _mean([alignment(s) for s in scores]),
         "scores": _means(scores)}
        for (name, lr), scores in zip(cells, found, strict=True)
    ]  # fmt: skip


def decide(
    work: Workers, targets: Sequence[Target], seeds: Sequence[int], variants: Sequence[str]
) -> dict[str, Any]:
    """Each variant less the defaults, paired by image and seed, and how long its steps take."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))["unziplora"]
    names = [AS_CHOSEN, *(name for name in variants if name != AS_CHOSEN)]
    groups = [
        [Job("unziplora", target, seed, {**chosen, **VARIANTS[name]}) for target in targets]
        for name in names
        for seed in seeds
    ]
    found = work.scored(groups)
    by_variant = {
        name: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, name in enumerate(names)
    }
    return {
        "variants": report.differences(by_variant, AS_CHOSEN, len(targets)),
        "seconds": {name: _seconds(scores) for name, scores in by_variant.items()},
        "chosen": chosen,
    }


def merge(work: Workers, targets: Sequence[Target], seeds: Sequence[int]) -> dict[str, Any]:
    """LoRAs that were trained alone, put together in each way, and the pairs that UnZipLoRA trains
    together: with their own style and with the next image's."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))
    groups = {
        method: [[Job(method, t, seed, chosen[method]) for t in targets] for seed in seeds]
        for method in (OWN, OTHERS)
    }
    found = {f"{method}, add": _together(work.scored(groups[method])) for method in groups}
    for how in MERGE_METHODS:
        if how != "add":
            found[f"{OTHERS}, {how}"] = _together(work.merged(groups[OTHERS], how))
    return {
        "table": report.table(found, len(targets)),
        "differences": report.differences(found, f"{OWN}, add", len(targets)),
        "chosen": chosen,
    }


def where(work: Workers, targets: Sequence[Target], seeds: Sequence[int]) -> dict[str, Any]:
    """Which attention groups hold what a LoRA has learned that was free to use all of them (m1's):
    what its layers gain in each group of the block table, and in all others."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))[FREE]
    jobs = [Job(FREE, target, seed, chosen) for seed in seeds for target in targets]
    every = tuple(family()[MINIATURE].groups)
    in_table = [group for full in FULL[MINIATURE].values() for group in full]
    layers = {
        **{group: (group,) for group in in_table},
        "the other groups": tuple(group for group in every if group not in in_table),
        "all groups": every,
    }
    return {role: report.table(work.limited(jobs, role, layers), len(targets)) for role in BRANCHES}


def final(
    work: Workers, targets: Sequence[Target], seeds: Sequence[int], methods: Sequence[str]
) -> dict[str, Any]:
    """All methods at their chosen rates, with the bounds of what can be."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))
    groups = [
        [Job(method, target, seed, chosen[method]) for target in targets]
        for method in methods
        for seed in seeds
    ]
    found = work.scored(groups)
    by_method = {
        method: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, method in enumerate(methods)
    }
    crossed = [(t, targets[(n + 1) % len(targets)]) for n, t in enumerate(targets)]
    bounds = {
        "the model alone": [report.alone(scores) for scores in by_method[methods[0]]],
        **work.bounds(crossed),
    }
    reached = {}
    if "dreambooth" in by_method:
        copies = _means(bounds["a copy of the image"])
        reached = capacity(_means(by_method["dreambooth"]), copies)
    return {
        "table": report.table(by_method, len(targets)),
        "bounds": report.table(bounds, len(targets)),
        "differences": report.differences(by_method, "unziplora", len(targets)),
        "preferred": report.preferred(by_method),
        "capacity": reached,
        "disagreements": report.disagreements(by_method, "unziplora", len(targets)),
        "chosen": chosen,
        "scores": by_method,
    }


def _seconds(found: Sequence[Scores]) -> float | None:
    """Processor seconds a step, of the trainings that were timed."""
    timed = [scores[SECONDS] for scores in found if SECONDS in scores]
    return _mean(timed) if timed else None


def _together(groups: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Of all groups' scores, those of two LoRAs at once, by each referee."""
    return [
        {name: value for name, value in scores.items() if name.split(": ")[-1] in TOGETHER}
        for group in groups
        for scores in group
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _means(found: Sequence[Scores]) -> Scores:
    return {name: _mean([scores[name] for scores in found]) for name in found[0]}
