"""The processes that train, sample and judge, each with its own model and one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
from unziplora.method.prompts import BranchName
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


def _score_limited(work: tuple[Job, BranchName, Sequence[str]]) -> Scores:
    job, role, groups = work
    return _scorer.score_limited(_bench, job, role, groups)


def _truth(targets: tuple[Target, Target]) -> Scores:
    return _scorer.truth(*targets)


def _copy(targets: tuple[Target, Target]) -> Scores:
    return _scorer.copy(_bench, *targets)


def _headroom(target: Target) -> Scores:
    return headroom(_bench, _scorer.judge, target).numbers


class Workers:
    """A pool of processes, started at first need. cache: a folder in which each model, code of the
    method and set of defaults has one of its own. kept: the file of what was measured before."""

    def __init__(self, count: int, model: Path, cache: Path, kept: Path | None = None) -> None:
        self.cache = cache / fingerprint(model, [])
        prepare = (_prepare, (model, self.cache))
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), *prepare)
        referees = [] if missing() else [EncoderJudge.name]
        self._measured = Measured(kept, fingerprint(model, referees))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def headrooms(self, targets: Sequence[Target]) -> list[Headroom]:
        """What the gates look at, of each target."""
        given = {f"gates {target.name}": target for target in targets}
        found = self._kept(_headroom, given, "targets measured")
        return [Headroom.of(t.name, numbers) for t, numbers in zip(targets, found, strict=True)]

    def scored(self, groups: Sequence[Sequence[Job]], *, cross: bool = True) -> list[list[Scores]]:
        """Scores of each group of jobs (one method's on all images, one seed): a group is trained,
        then sampled. cross: also with the next one's style."""
        found = []
        for n, group in enumerate(groups, 1):
            next_ones = [*group[1:], group[0]] if cross else [None] * len(group)
            pairs = list(zip(group, next_ones, strict=True))
            name = f"group {n} of {len(groups)} ({group[0].method}): "
            found.append(self._trained(_score, {key_of(*pair): pair for pair in pairs}, name))
        return found

    def merged(self, groups: Sequence[Sequence[Job]], how: str) -> list[list[Scores]]:
        """Scores of each group's content with its own style and with the next one's, each two made
        one file. how: of MERGE_METHODS."""
        found = []
        for n, group in enumerate(groups, 1):
            pairs = zip(group, [*group[1:], group[0]], strict=True)
            given = {f"{key_of(*pair)} merged {how}": (*pair, how) for pair in pairs}
            name = f"group {n} of {len(groups)} ({group[0].method}, {how}): "
            found.append(self._trained(_score_merged, given, name))
        return found

    def limited(
        self, group: Sequence[Job], role: BranchName, layers: Mapping[str, Sequence[str]]
    ) -> dict[str, list[Scores]]:
        """Scores of a role's LoRA of each job, with its layers in some attention groups only.
        layers: these groups, by a label."""
        found = {}
        for label, groups in layers.items():
            given = {f"{job.key} {role} in {' '.join(groups)}": (job, role, tuple(groups))
                     for job in group}  # fmt: skip
            found[label] = self._trained(_score_limited, given, f"{role} in {label}: ")
        return found

    def bounds(self, crossed: Sequence[tuple[Target, Target]]) -> dict[str, list[Scores]]:
        """A copy of the image, and the world itself, for each image and the one whose style it is
        crossed with."""
        pairs = {f"{a.name} x {b.name}": (a, b) for a, b in crossed}

        def each(work: Callable[[Any], Scores], what: str) -> list[Scores]:
            return self._kept(work, {f"{what} {name}": pair for name, pair in pairs.items()}, what)

        return {
            "a copy of the image": each(_copy, "copy"),
            "the world itself": each(_truth, "truth"),
        }

    def _trained(
        self, work: Callable[[Any], Scores], given: Mapping[str, tuple[Any, ...]], name: str
    ) -> list[Scores]:
        """As `_kept`, after the trainings among what is new."""
        new = [one for key, one in given.items() if self._measured.get(key) is None]
        needed = {job.key: job for one in new for job in one if isinstance(job, Job)}
        for _ in self._each(_train, list(needed.values()), name + "trained"):
            pass
        return self._kept(work, given, name + "judged")

    def _kept(
        self, work: Callable[[Any], Scores], given: Mapping[str, Any], what: str
    ) -> list[Scores]:
        """What `work` finds of each, by the key under which it is kept; only what is new is
        measured."""
        new = {key: one for key, one in given.items() if self._measured.get(key) is None}
        for key, found in zip(new, self._each(work, list(new.values()), what), strict=True):
            self._measured.add(key, found)
        return [self._measured.get(key) or {} for key in given]

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
