"""The three parts of the judge: what is trained and sampled for each, by worker processes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import report
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.scores import Scorer, overall
from benchmarks.quality.targets import PARTS, Target
from mini_world.probes import Judge
from mini_world.sampler import Sampler
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.method.blocks import FULL

CHOSEN = Path(__file__).parent / "chosen.json"
# Higher ones were tried for some methods: nothing is gained at 3e-3, and at 1e-2 objects dissolve.
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
STEPS = (300, 600)
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
_bench: Bench
_scorer: Scorer


def workers(count: int, model: Path, cache: Path) -> ProcessPoolExecutor:
    """For `choose`, `decide` and `final`."""
    return ProcessPoolExecutor(count, get_context("spawn"), _prepare, (model, cache))


def _prepare(model: Path, cache: Path) -> None:
    """Each worker has its own model and one core."""
    global _bench, _scorer
    torch.set_num_threads(1)
    _bench = Bench(Sampler(StandaloneHost.open(model)), cache)
    _scorer = Scorer(Judge())


def _train(job: Job) -> None:
    _bench.pair(job)


def _score(jobs: tuple[Job, Job | None]) -> Scores:
    return _scorer.score(_bench, *jobs)


def _truth(targets: tuple[Target, Target]) -> Scores:
    return _scorer.truth(*targets)


def scored(pool: Any, groups: Sequence[Sequence[Job]], *, cross: bool = True) -> list[list[Scores]]:
    """Scores of each group of jobs (one method's on all images, one seed): all are trained, then
    sampled. cross: also with the next one's style."""
    flat = [job for group in groups for job in group]
    list(_told(pool.map(_train, flat), len(flat), "trained"))
    pairs = [
        (job, group[(n + 1) % len(group)] if cross else None)
        for group in groups
        for n, job in enumerate(group)
    ]
    scores = iter(list(_told(pool.map(_score, pairs), len(pairs), "judged")))
    return [[next(scores) for _ in group] for group in groups]


def _told(results: Any, total: int, what: str) -> Any:
    start = time.monotonic()
    for n, result in enumerate(results, 1):
        left = (time.monotonic() - start) / n * (total - n) / 60
        print(f"\r{what} {n} of {total}, {left:.0f} min left   ", end="", flush=True)
        yield result
    print()


def choose(pool: Any, part: str, seeds: Sequence[int], methods: Sequence[str]) -> dict[str, Any]:
    """Each method's learning rate at the fewest steps, then its steps at that rate."""
    tried: list[dict[str, Any]] = []

    def best(method: str) -> dict[str, Any]:
        return max((row for row in tried if row["method"] == method), key=lambda r: r["overall"])

    tried += _tried(pool, part, seeds[0], [(m, lr, STEPS[0]) for m in methods for lr in RATES])
    more = [(m, best(m)["lr"], steps) for m in methods for steps in STEPS[1:]]
    tried += _tried(pool, part, seeds[0], more)
    known = json.loads(CHOSEN.read_text("utf-8")) if CHOSEN.exists() else {}
    found = {method: {key: best(method)[key] for key in ("lr", "steps")} for method in methods}
    chosen = {**known, **found}
    CHOSEN.write_text(json.dumps(chosen, indent=2) + "\n", "utf-8")
    return {"grid": tried, "chosen": chosen}


def _tried(
    pool: Any, part: str, seed: int, cells: Sequence[tuple[str, float, int]]
) -> list[dict[str, Any]]:
    """The mean scores of each (method, learning rate, steps)."""
    groups = [
        [Job(method, target, seed, {"lr": lr, "steps": steps}) for target in PARTS[part]]
        for method, lr, steps in cells
    ]
    return [
        {"method": method, "lr": lr, "steps": steps, "overall": _mean([overall(s) for s in found]),
         "scores": _means(found)}
        for (method, lr, steps), found in zip(
            cells, scored(pool, groups, cross=False), strict=True
        )
    ]  # fmt: skip


def decide(pool: Any, part: str, seeds: Sequence[int], variants: Sequence[str]) -> dict[str, Any]:
    """Each variant less the defaults, paired by image and seed."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))["unziplora"]
    names = [AS_CHOSEN, *(name for name in variants if name != AS_CHOSEN)]
    groups = [
        [Job("unziplora", target, seed, {**chosen, **VARIANTS[name]}) for target in PARTS[part]]
        for name in names
        for seed in seeds
    ]
    found = scored(pool, groups)
    by_variant = {
        name: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, name in enumerate(names)
    }
    return {
        "variants": report.differences(by_variant, AS_CHOSEN, len(PARTS[part])),
        "chosen": chosen,
    }


def final(pool: Any, part: str, seeds: Sequence[int], methods: Sequence[str]) -> dict[str, Any]:
    chosen = json.loads(CHOSEN.read_text("utf-8"))
    groups = [
        [Job(method, target, seed, chosen[method]) for target in PARTS[part]]
        for method in methods
        for seed in seeds
    ]
    found = scored(pool, groups)
    by_method = {
        method: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, method in enumerate(methods)
    }
    targets = PARTS[part]
    crossed = [(t, targets[(n + 1) % len(targets)]) for n, t in enumerate(targets)]
    bounds = {
        "the model alone": [report.alone(scores) for scores in by_method[methods[0]]],
        "the world itself": list(pool.map(_truth, crossed)),
    }
    return {
        "table": report.table(by_method, len(targets)),
        "bounds": report.table(bounds, len(targets)),
        "differences": report.differences(by_method, "unziplora", len(targets)),
        "preferred": report.preferred(by_method),
        "chosen": chosen,
        "scores": by_method,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _means(found: Sequence[Scores]) -> Scores:
    return {name: _mean([scores[name] for scores in found]) for name in found[0]}
