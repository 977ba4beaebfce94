"""The processes that train, sample and judge, each with its own model and one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.gates import Headroom, headroom
from benchmarks.quality.measured import Measured, fingerprint, key_of
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.scores import Scorer
from benchmarks.quality.targets import Target
from mini_world.emoji.probes import judge
from mini_world.encoder import EncoderJudge
from mini_world.sampler import Sampler
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.scores.efficientnet import missing

Scores = dict[str, float]
_bench: Bench
_scorer: Scorer


def _prepare(model: Path, cache: Path) -> None:
    global _bench, _scorer
    torch.set_num_threads(1)
    _bench = Bench(Sampler(StandaloneHost.open(model)), cache)
    _scorer = Scorer(judge(), [] if missing() else [EncoderJudge()])


def _train(job: Job) -> None:
    _bench.pair(job)


def _score(jobs: tuple[Job, Job | None]) -> Scores:
    return _scorer.score(_bench, *jobs)


def _score_merged(work: tuple[Job, Job, str]) -> Scores:
    job, style_of, how = work
    return _scorer.score_merged(_bench, job, style_of, how)


def _truth(targets: tuple[Target, Target]) -> Scores:
    return _scorer.truth(*targets)


def _copy(targets: tuple[Target, Target]) -> Scores:
    return _scorer.copy(_bench, *targets)


def _headroom(target: Target) -> Headroom:
    return headroom(_bench, _scorer.judge, target)


class Workers:
    """A pool of processes, started at first need. kept: the file of what was measured before."""

    def __init__(self, count: int, model: Path, cache: Path, kept: Path | None = None) -> None:
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _prepare, (model, cache))
        referees = [] if missing() else [EncoderJudge.name]
        self._measured = Measured(kept, fingerprint(model, referees))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def headrooms(self, targets: Sequence[Target]) -> list[Headroom]:
        """What the gates look at, of each target."""
        new = [t for t in targets if self._measured.get(f"gates {t.name}") is None]
        found = self._each(_headroom, new, "targets measured")
        for room, target in zip(found, new, strict=True):
            numbers = {name: float(v) for name, v in asdict(room).items() if name != "target"}
            self._measured.add(f"gates {target.name}", numbers)
        return [Headroom.of(t.name, self._measured.get(f"gates {t.name}") or {}) for t in targets]

    def scored(self, groups: Sequence[Sequence[Job]], *, cross: bool = True) -> list[list[Scores]]:
        """Scores of each group of jobs (one method's on all images, one seed): a group is trained,
        then sampled. cross: also with the next one's style."""
        return [
            self._group(group, cross, f"{n} of {len(groups)}") for n, group in enumerate(groups, 1)
        ]

    def _group(self, group: Sequence[Job], cross: bool, which: str) -> list[Scores]:
        pairs = [
            (job, group[(n + 1) % len(group)] if cross else None) for n, job in enumerate(group)
        ]
        new = [pair for pair in pairs if self._measured.get(key_of(*pair)) is None]
        needed = {job.key: job for pair in new for job in pair if job is not None}
        name = f"group {which} ({group[0].method}): "
        for _ in self._each(_train, list(needed.values()), name + "trained"):
            pass
        for scores, pair in zip(self._each(_score, new, name + "judged"), new, strict=True):
            self._measured.add(key_of(*pair), scores)
        return [self._measured.get(key_of(*pair)) or {} for pair in pairs]

    def merged(self, groups: Sequence[Sequence[Job]], how: str) -> list[list[Scores]]:
        """Scores of each group's content with its own style and with the next one's, each two made
        one file. how: of MERGE_METHODS."""
        return [
            self._merged(group, how, f"{n} of {len(groups)}") for n, group in enumerate(groups, 1)
        ]

    def _merged(self, group: Sequence[Job], how: str, which: str) -> list[Scores]:
        pairs = [(job, group[(n + 1) % len(group)]) for n, job in enumerate(group)]
        keys = [f"{key_of(*pair)} merged {how}" for pair in pairs]
        new = {key: (*pair, how) for key, pair in zip(keys, pairs, strict=True)
               if self._measured.get(key) is None}  # fmt: skip
        trained = f"group {which} ({group[0].method}): trained"
        for _ in self._each(_train, group if new else [], trained):
            pass
        found = self._each(_score_merged, list(new.values()), f"group {which} ({how}): judged")
        for key, scores in zip(new, found, strict=True):
            self._measured.add(key, scores)
        return [self._measured.get(key) or {} for key in keys]

    def bounds(self, crossed: Sequence[tuple[Target, Target]]) -> dict[str, list[Scores]]:
        """A copy of the image, and the world itself, for each image and the one whose style it is
        crossed with."""
        return {
            "a copy of the image": list(self._each(_copy, crossed, "copies judged")),
            "the world itself": list(self._each(_truth, crossed, "truths judged")),
        }

    def _each(self, work: Callable[[Any], Any], given: Sequence[Any], what: str) -> Iterator[Any]:
        return _with_progress(self._pool.map(work, given), len(given), what)


def _with_progress(results: Iterable[Any], total: int, what: str) -> Iterator[Any]:
    start = time.monotonic()
    for n, result in enumerate(results, 1):
        left = (time.monotonic() - start) / n * (total - n) / 60
        print(f"\r{what} {n} of {total}, {left:.0f} min left   ", end="", flush=True)
        yield result
    if total:
        print()
