"""The loop of a batch: gives jobs to workers, puts those of a dead worker back, shows progress.

It knows workers only as `Workers`; local.py and ray_driver.py are the two kinds.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from unziplora.batch.lease import LEASE_SECONDS
from unziplora.batch.results import Result, append_result
from unziplora.errors import InvalidInput
from unziplora.training.manifest import BatchJob
from unziplora.training.run_folder import RunFolder, run_path

MOST_DEATHS = 3  # a job that ends its worker so often is at fault itself
BUSY_SECONDS = LEASE_SECONDS + 60  # by then a dead owner's lease has ended, and a living one's not
REST_SECONDS = 5.0  # before a job that another driver has is offered again


class Workers(Protocol):
    """Processes that each hold a model; numbered from 0."""

    def idle(self) -> Sequence[int]:
        """Those that can take a job now."""

    def submit(self, worker: int, job: BatchJob) -> None: ...

    def wait(self, seconds: float) -> Sequence[tuple[BatchJob, Result | None]]:
        """Jobs that ended within this time; None where the worker died (another takes its place
        where one can be had)."""

    def stop(self) -> None:
        """All runs save their states and end."""

    def alive(self) -> int:
        """How many workers there are; 0 ends the batch."""

    def close(self) -> None: ...


class Batch:
    """jobs: in the order of the manifest. retry: how often a failed job is tried again. log: each
    result becomes a line of it; `out`: where pairs and run folders lie. protocol: how scores are
    measured, kept with them."""

    def __init__(
        self,
        jobs: Sequence[BatchJob],
        workers: Workers,
        out: Path,
        *,
        log: Path | None = None,
        retry: int = 0,
        protocol: Mapping[str, Any] | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
        on_result: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self._jobs, self._workers, self._out, self._retry = jobs, workers, out, retry
        self._on_progress, self._on_result = on_progress, on_result
        self._log, self._protocol = log or out / "batch.jsonl", protocol or {}
        self._waiting = deque(jobs)
        self._rests: dict[str, float] = {}  # until when a job is not offered
        self._busy_since: dict[str, float] = {}
        self._running: dict[str, BatchJob] = {}
        self._results: dict[str, Result] = {}
        self._tries: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._stopping = False

    def stop(self) -> None:
        """All runs save and end; jobs that wait stay for the next time."""
        self._stopping = True
        self._workers.stop()

    def run(self) -> Mapping[str, Result]:
        """Until every job has ended, or `stop`: results by name."""
        while (self._waiting and not self._stopping) or self._running:
            if not self._workers.alive():
                break
            self._submit()
            for job, result in self._workers.wait(1.0):
                self._running.pop(job.name, None)
                if result is None:
                    self._died(job)
                else:
                    self._ended(job, result)
            self._on_progress(self._progress())
        for job in self._jobs:
            self._results.setdefault(job.name, self._left_over(job))
        return {job.name: self._results[job.name] for job in self._jobs}

    def _left_over(self, job: BatchJob) -> Result:
        if RunFolder(run_path(self._out, job.name)).has_state:
            return Result(job.name, "stopped", "Its state is saved.")
        return Result(job.name, "stopped", "It has not begun.")

    def _submit(self) -> None:
        for worker in self._workers.idle():
            job = None if self._stopping else self._next()
            if job is None:
                return
            self._running[job.name] = job
            self._workers.submit(worker, job)

    def _next(self) -> BatchJob | None:
        """The first job that waits and does not rest."""
        now = time.monotonic()
        job = next((j for j in self._waiting if self._rests.get(j.name, 0.0) <= now), None)
        if job is not None:
            self._waiting.remove(job)
        return job

    def _died(self, job: BatchJob) -> None:
        self._deaths[job.name] += 1
        if self._deaths[job.name] < MOST_DEATHS:
            self._waiting.append(job)
            return
        message = f"Its worker died {MOST_DEATHS} times. See log.txt in its run's folder."
        self._keep(Result(job.name, "failed", message))

    def _ended(self, job: BatchJob, result: Result) -> None:
        if result.state == "returned" or self._may_become_free(result):
            self._waiting.append(job)
            return
        if result.state == "failed" and self._tries[job.name] < self._retry:
            self._tries[job.name] += 1
            self._waiting.append(job)
            return
        self._keep(result)

    def _may_become_free(self, result: Result) -> bool:
        """Whether another driver's job is to be offered again: that driver may have been killed,
        its worker still be saving, or its machine be gone."""
        if result.state != "busy" or self._stopping:
            return False
        now = time.monotonic()
        since = self._busy_since.setdefault(result.name, now)
        self._rests[result.name] = now + REST_SECONDS
        return now - since < BUSY_SECONDS

    def _keep(self, result: Result) -> None:
        if result.scores:
            result = replace(result, protocol=self._protocol)
        try:
            append_result(self._log, result)
        except OSError as error:  # a full disk must not end the runs that still have room
            text = f"{result.message} It could not be added to {self._log.name} ({error.strerror})."
            result = replace(result, message=text.lstrip())
        self._results[result.name] = result
        self._on_result(result)

    def _progress(self) -> str:
        """As "7 of 40 done · fox 120/600, cat 30/600 · 1:20 h left"."""
        parts = [f"{len(self._results)} of {len(self._jobs)} done"]
        steps = {name: self._steps(name) for name in self._running}
        known = {name: found for name, found in steps.items() if found is not None}
        if known:
            parts.append(", ".join(_shown(name, *found[:2]) for name, found in known.items()))
        left = self._seconds_left(known)
        if left is not None:
            parts.append(f"{int(left // 3600)}:{int(left % 3600 // 60):02} h left")
        return " · ".join(parts)

    def _seconds_left(self, known: Mapping[str, tuple[int, int, float]]) -> float | None:
        if not known:
            return None
        pace = median(seconds for _, _, seconds in known.values())
        usual = median(total for _, total, _ in known.values())
        steps = sum(total - done for done, total, _ in known.values()) + usual * len(self._waiting)
        return pace * steps / max(1, self._workers.alive())

    def _steps(self, name: str) -> tuple[int, int, float] | None:
        """Steps done, all, and seconds a step, from the run's folder: any worker's, anywhere."""
        folder = RunFolder(run_path(self._out, name))
        rows = folder.read_progress()
        if not rows:
            return None
        recent = [row["seconds"] for row in rows[-20:]]
        try:
            total = folder.read_info().settings.steps
        except InvalidInput:  # being written, or damaged: the worker says so
            return None
        return int(rows[-1]["step"]), total, median(recent)


def _shown(name: str, done: int, total: int) -> str:
    """A run's progress; after its last step files are written and samples drawn."""
    return f"{name} {done}/{total}" if done < total else f"{name} finishing"
