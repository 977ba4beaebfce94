"""Workers as Ray actors: one for each GPU of a cluster, each holding the loaded base.

Jobs are not Ray's to retry: an actor that dies puts its job back, and any other resumes it from the
run's folder, which all of them must see (a shared disk).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unziplora.batch.base import Base
from unziplora.batch.results import Result
from unziplora.errors import InvalidInput
from unziplora.training.manifest import BatchJob

_RESTARTS = 3  # of one actor
_REST_SECONDS = 10.0  # before a job is offered again to an actor that did not answer
_OBJECT_STORE = 80_000_000  # bytes: jobs and results are small; Ray's least


class _Actor:
    """A Worker in Ray's process; `stop` is answered while `train` runs."""

    def __init__(self, base: Base, out: Path, number: int, threads: int) -> None:
        from unziplora.batch.worker import Worker

        name = f"ray {number}"
        self._worker = Worker(lambda: base.open(threads), out, name, base.sampler(out))

    def train(self, job: BatchJob) -> Result:
        return self._worker.train(job)

    def stop(self) -> None:
        self._worker.stop()


class RayWorkers:
    """address: of a running cluster ("auto": the one on this machine), or None for one of its own.
    count: actors; None: one a GPU, or one a node where there is none."""

    def __init__(self, address: str | None, count: int | None, base: Base, out: Path) -> None:
        self._ray = ray = _import_ray(own=address is None)
        self._own = address is None and not ray.is_initialized()
        if self._own:
            ray.init(
                "local",  # else it joins what RAY_ADDRESS or the last `ray start` left
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE,
                num_cpus=max(count or 1, os.cpu_count() or 1),  # or actors would wait for ever
            )
        elif not ray.is_initialized():
            _join(ray, str(address))
        nodes = sum(node["Alive"] for node in ray.nodes())
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = count or gpus or max(1, nodes)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        threads = max(1, (os.cpu_count() or 1) * max(1, nodes) // count)
        actor = ray.remote(max_restarts=_RESTARTS, max_task_retries=0, max_concurrency=2, **needs)(
            _Actor
        )
        self._actors = [actor.remote(base, out, n, threads) for n in range(count)]
        self._deaths: Counter[int] = Counter()
        self._rests_until: dict[int, float] = {}
        self._running: dict[Any, tuple[int, BatchJob]] = {}

    def idle(self) -> Sequence[int]:
        now, busy = time.monotonic(), {worker for worker, _ in self._running.values()}
        return [
            number
            for number in range(len(self._actors))
            if number not in busy
            and not self._is_lost(number)
            and self._rests_until.get(number, 0) <= now
        ]

    def alive(self) -> int:
        return sum(not self._is_lost(number) for number in range(len(self._actors)))

    def _is_lost(self, worker: int) -> bool:
        return self._deaths[worker] > _RESTARTS

    def submit(self, worker: int, job: BatchJob) -> None:
        self._running[self._actors[worker].train.remote(job)] = worker, job

    def wait(self, seconds: float) -> Sequence[tuple[BatchJob, Result | None]]:
        if not self._running:
            time.sleep(min(seconds, 0.2))  # all rest
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._ended(task) for task in ready]

    def _ended(self, task: Any) -> tuple[BatchJob, Result | None]:
        worker, job = self._running.pop(task)
        errors = self._ray.exceptions
        try:
            return job, self._ray.get(task)
        except errors.ActorUnavailableError:  # being started again, or its node is gone
            self._rests_until[worker] = time.monotonic() + _REST_SECONDS
            return job, Result(job.name, "returned")
        except errors.RayActorError:
            self._deaths[worker] += 1
            return job, None
        except errors.RayTaskError as error:
            return job, Result(job.name, "failed", f"Unexpected error: {error.cause}")

    def stop(self) -> None:
        for number, actor in enumerate(self._actors):
            if not self._is_lost(number):
                actor.stop.remote()

    def close(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()


def _join(ray: Any, address: str) -> None:
    """Raises InvalidInput where no cluster answers."""
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:  # Ray's kinds differ by what is wrong
        raise InvalidInput(
            f"No Ray cluster can be joined at {address} ({' '.join(str(error).split())[:200]}). "
            "Start one with `ray start --head`, or write ray:N for one of its own."
        ) from error


def _import_ray(own: bool) -> Any:
    """own: for a cluster of this process alone, which then listens on loopback only."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    if own:
        # Ray replaces 127.0.0.1 by the machine's own address, and listens on all, unless this says
        # that there is no other machine (ray/_private/services.py, get_node_ip_address)
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    else:  # of 40 s each; Ray's own 20 leave a wrong address unanswered for a quarter of an hour
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    try:
        import ray
    except ImportError as error:
        raise InvalidInput(
            "The package ray is missing, which --workers ray needs. Install it with: "
            "pip install 'unziplora[ray]'"
        ) from error
    return ray
