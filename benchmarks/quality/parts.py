"""The parts of the benchmark: what is trained and sampled for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import report
from benchmarks.quality.gates import Headroom, by_faults, capacity, passing
from benchmarks.quality.runs import Job
from benchmarks.quality.scores import TOGETHER, alignment
from benchmarks.quality.targets import PARTS, WANTED, Target
from benchmarks.quality.workers import Workers
from unziplora.lora.merge_methods import MERGE_METHODS
from unziplora.method.blocks import FULL
from unziplora.method.methods import INSPIRATION_TREE
from unziplora.method.methods import METHODS as LORA_METHODS

CHOSEN = Path(__file__).parent / "chosen.json"
METHODS = (*LORA_METHODS, INSPIRATION_TREE)
# where a method's search for its rate begins: a best rate at the edge moves the edge outwards
RATES = dict.fromkeys(LORA_METHODS, (5e-4, 1e-3, 2e-3)) | {INSPIRATION_TREE: (2e-3, 4e-3, 8e-3)}
WIDENED = 5  # so many times at most
STEPS = 300  # of every method: rates are compared at one price
QUICK = 3  # targets
OWN, OTHERS = (
    "unziplora",
    "dreambooth",
)  # whose pairs merges are compared with, and whose are merged
AS_CHOSEN = "as chosen"
VARIANTS: dict[str, dict[str, Any]] = {
    AS_CHOSEN: {},
    "fold h": {"fold": "h"},
    "signed importance": {"importance": "signed"},
    "B random": {"init": "random"},
    "style prompt names the class": {"style_prompt": "class"},
    "window 1": {"window": 1},
    "mergers at the paper's rate": {"merger_lr": 5e-3},
    "mergers held at 1": {"merger_lr": 0.0},
    "SDXL's block table": {"blocks": dict(FULL["sdxl"])},
    "plan low": {"memory": "low"},
    "plan lowest": {"memory": "lowest"},
}

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
    """Each method's learning rate, by alignment alone; a grid is widened until the best rate lies
    inside it."""
    tried = _tried(work, targets, seeds[0], [(m, lr) for m in methods for lr in RATES[m]])
    for _ in range(WIDENED):
        more = [(m, lr) for m in methods for lr in next_rate(tried, m)]
        if not more:
            break
        tried += _tried(work, targets, seeds[0], more)
    known = json.loads(CHOSEN.read_text("utf-8")) if CHOSEN.exists() else {}
    found = {m: {"lr": best(tried, m)["lr"], "steps": STEPS} for m in methods}
    chosen = {**known, **found}
    CHOSEN.write_text(json.dumps(chosen, indent=2) + "\n", "utf-8")
    at_edge = [m for m in methods if next_rate(tried, m)]
    return {"grid": tried, "chosen": chosen, "at_edge": at_edge}


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
    work: Workers, targets: Sequence[Target], seed: int, cells: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """The mean scores of each (method, learning rate)."""
    groups = [
        [Job(method, target, seed, {"lr": lr, "steps": STEPS}) for target in targets]
        for method, lr in cells
    ]
    return [
        {"method": method, "lr": lr, "alignment": _mean([alignment(s) for s in found]),
         "scores": _means(found)}
        for (method, lr), found in zip(cells, work.scored(groups, cross=False), strict=True)
    ]  # fmt: skip


def decide(
    work: Workers, targets: Sequence[Target], seeds: Sequence[int], variants: Sequence[str]
) -> dict[str, Any]:
    """Each variant less the defaults, paired by image and seed."""
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
