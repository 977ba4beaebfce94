"""The parts of the benchmark: what is trained and sampled for each, by worker processes."""

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
from benchmarks.quality.gates import Headroom, by_faults, capacity, headroom, passing
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.scores import Scorer, alignment
from benchmarks.quality.targets import PARTS, WANTED, Target
from mini_world.emoji.probes import judge
from mini_world.encoder import EncoderJudge
from mini_world.sampler import Sampler
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.method.blocks import FULL
from unziplora.scores.efficientnet import missing

CHOSEN = Path(__file__).parent / "chosen.json"
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
WIDENED = 3  # a best rate at the grid's edge moves the edge outwards, so many times at most
STEPS = 300  # of every method: rates are compared at one price
QUICK = 3  # targets
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
    _scorer = Scorer(judge(), [] if missing() else [EncoderJudge()])


def _train(job: Job) -> None:
    _bench.pair(job)


def _score(jobs: tuple[Job, Job | None]) -> Scores:
    return _scorer.score(_bench, *jobs)


def _truth(targets: tuple[Target, Target]) -> Scores:
    return _scorer.truth(*targets)


def _copy(targets: tuple[Target, Target]) -> Scores:
    return _scorer.copy(_bench, *targets)


def _headroom(target: Target) -> Headroom:
    return headroom(_bench, _scorer.judge, target)


def gated(pool: Any, part: str, ungated: bool = False) -> tuple[list[Target], list[Headroom]]:
    """The targets of a part that pass the gates, as many as wanted, and what was found of all.
    ungated: filled up with targets that do not pass, those with the fewest faults first."""
    found = list(
        _with_progress(pool.map(_headroom, PARTS[part]), len(PARTS[part]), "targets measured")
    )
    targets = passing(found, PARTS[part])
    if ungated:
        poor = [t for t in by_faults(found, PARTS[part]) if t not in targets]
        targets = [*targets, *poor]
    return targets[: WANTED[part]], found


def scored(pool: Any, groups: Sequence[Sequence[Job]], *, cross: bool = True) -> list[list[Scores]]:
    """Scores of each group of jobs (one method's on all images, one seed): all are trained, then
    sampled. cross: also with the next one's style."""
    flat = [job for group in groups for job in group]
    list(_with_progress(pool.map(_train, flat), len(flat), "trained"))
    pairs = [
        (job, group[(n + 1) % len(group)] if cross else None)
        for group in groups
        for n, job in enumerate(group)
    ]
    scores = iter(list(_with_progress(pool.map(_score, pairs), len(pairs), "judged")))
    return [[next(scores) for _ in group] for group in groups]


def _with_progress(results: Any, total: int, what: str) -> Any:
    start = time.monotonic()
    for n, result in enumerate(results, 1):
        left = (time.monotonic() - start) / n * (total - n) / 60
        print(f"\r{what} {n} of {total}, {left:.0f} min left   ", end="", flush=True)
        yield result
    print()


def choose(
    pool: Any, targets: Sequence[Target], seeds: Sequence[int], methods: Sequence[str]
) -> dict[str, Any]:
    """Each method's learning rate, by alignment alone; a grid is widened until the best rate lies
    inside it."""
    tried = _tried(pool, targets, seeds[0], [(m, lr) for m in methods for lr in RATES])
    for _ in range(WIDENED):
        more = [(m, lr) for m in methods for lr in next_rate(tried, m)]
        if not more:
            break
        tried += _tried(pool, targets, seeds[0], more)
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
    pool: Any, targets: Sequence[Target], seed: int, cells: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """The mean scores of each (method, learning rate)."""
    groups = [
        [Job(method, target, seed, {"lr": lr, "steps": STEPS}) for target in targets]
        for method, lr in cells
    ]
    return [
        {"method": method, "lr": lr, "alignment": _mean([alignment(s) for s in found]),
         "scores": _means(found)}
        for (method, lr), found in zip(cells, scored(pool, groups, cross=False), strict=True)
    ]  # fmt: skip


def decide(
    pool: Any, targets: Sequence[Target], seeds: Sequence[int], variants: Sequence[str]
) -> dict[str, Any]:
    """Each variant less the defaults, paired by image and seed."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))["unziplora"]
    names = [AS_CHOSEN, *(name for name in variants if name != AS_CHOSEN)]
    groups = [
        [Job("unziplora", target, seed, {**chosen, **VARIANTS[name]}) for target in targets]
        for name in names
        for seed in seeds
    ]
    found = scored(pool, groups)
    by_variant = {
        name: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, name in enumerate(names)
    }
    return {
        "variants": report.differences(by_variant, AS_CHOSEN, len(targets)),
        "chosen": chosen,
    }


def final(
    pool: Any, targets: Sequence[Target], seeds: Sequence[int], methods: Sequence[str]
) -> dict[str, Any]:
    """All methods at their chosen rates, with the bounds of what can be."""
    chosen = json.loads(CHOSEN.read_text("utf-8"))
    groups = [
        [Job(method, target, seed, chosen[method]) for target in targets]
        for method in methods
        for seed in seeds
    ]
    found = scored(pool, groups)
    by_method = {
        method: [s for group in found[n * len(seeds) : (n + 1) * len(seeds)] for s in group]
        for n, method in enumerate(methods)
    }
    crossed = [(t, targets[(n + 1) % len(targets)]) for n, t in enumerate(targets)]
    bounds = {
        "the model alone": [report.alone(scores) for scores in by_method[methods[0]]],
        "a copy of the image": list(pool.map(_copy, crossed)),
        "the world itself": list(pool.map(_truth, crossed)),
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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _means(found: Sequence[Scores]) -> Scores:
    return {name: _mean([scores[name] for scores in found]) for name in found[0]}
