"""Workers as processes of this machine: one for each GPU, or N on a CPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from unziplora.batch.base import Base
from unziplora.batch.results import Result
from unziplora.errors import TrainingFailed
from unziplora.training.manifest import BatchJob

_STOP = "stop"
_ENDS_WITHIN = 10.0  # seconds, for a worker that has nothing to do
_MOST_IDLE_DEATHS = 3  # of a process that ends before its first job: it cannot be started here


@dataclass
class _Process:
    process: Any
    pipe: Connection
    job: BatchJob | None = None
    served: bool = False  # it has ended a job


class LocalWorkers:
    """count processes; each sees one GPU where there are any (CUDA_VISIBLE_DEVICES), else an equal
    share of the CPU's threads. A process that dies is replaced."""

    def __init__(self, count: int, base: Base, out: Path) -> None:
        self._context = multiprocessing.get_context("spawn")  # a fork would share CUDA's state
        self._base, self._out = base, out
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._gpus = _visible_gpus()
        self._idle_deaths = 0
        self._processes = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> _Process:
        ours, theirs = self._context.Pipe()
        environment = {}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        process = self._context.Process(
            target=_serve,
            args=(theirs, number, self._base, self._out, self._threads, environment),
            name=f"unziplora-worker-{number}",
        )
        process.start()
        theirs.close()
        return _Process(process, ours)

    def idle(self) -> Sequence[int]:
        return [n for n, process in enumerate(self._processes) if process.job is None]

    def alive(self) -> int:
        return len(self._processes)

    def submit(self, worker: int, job: BatchJob) -> None:
        process = self._processes[worker]
        process.job = job
        with contextlib.suppress(OSError):  # it has just died: `wait` finds it
            process.pipe.send(job)

    def wait(self, seconds: float) -> Sequence[tuple[BatchJob, Result | None]]:
        ended: list[tuple[BatchJob, Result | None]] = []
        ready = wait([process.pipe for process in self._processes], seconds)
        for number, process in enumerate(self._processes):
            if process.pipe not in ready:
                continue
            try:
                result: Result | None = process.pipe.recv()
            except (EOFError, OSError):
                result = None
            if process.job is not None:
                ended.append((process.job, result))
            if result is None:
                self._replace(number)
            process.job, process.served = None, True
        return ended

    def _replace(self, number: int) -> None:
        """Another process in the place of one that died. Raises TrainingFailed where none lives."""
        dead = self._processes[number]
        dead.process.join()
        dead.pipe.close()
        self._idle_deaths += dead.job is None
        if self._idle_deaths >= _MOST_IDLE_DEATHS:
            raise TrainingFailed(
                f"A worker ended {_MOST_IDLE_DEATHS} times before its first job (exit code "
                f"{dead.process.exitcode}). Try one image with `unziplora train` to see why."
            )
        self._processes[number] = self._start(number)

    def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.pipe.send(_STOP)

    def close(self) -> None:
        for process in self._processes:
            process.pipe.close()  # a worker ends where nobody is there to work for
            if process.job is None and not process.served:  # it may still be starting
                process.process.kill()
        for process in self._processes:
            if process.job is None:  # it has nothing to save
                process.process.join(_ENDS_WITHIN)
                process.process.kill()
            process.process.join()


def _serve(
    pipe: Connection,
    number: int,
    base: Base,
    out: Path,
    threads: int,
    environment: Mapping[str, str],
) -> None:
    """A worker's process: takes jobs from the pipe until it is closed, also by the driver's death:
    the run in progress then saves its state."""
    os.environ.update(environment)  # before CUDA is initialised
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # the driver says when to stop
    from unziplora.batch.worker import Worker

    worker = Worker(lambda: base.open(threads), out, f"local {number}", base.sampler(out))
    jobs: list[BatchJob] = []
    arrived = threading.Condition()
    closed = False

    def listen() -> None:
        nonlocal closed
        while True:
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = None
            except Exception:  # a job that cannot be read, as after an update of this program
                traceback.print_exc()
                message = None  # ends this process, so that the driver does not wait for it
            with arrived:
                if isinstance(message, BatchJob):
                    jobs.append(message)
                else:
                    worker.stop()
                    closed = closed or message is None
                arrived.notify()
            if message is None:
                return

    threading.Thread(target=listen, daemon=True).start()
    while True:
        with arrived:
            arrived.wait_for(lambda: jobs or closed)
            if not jobs:
                return
            job = jobs.pop(0)
        result = worker.train(job)
        with contextlib.suppress(OSError):
            pipe.send(result)


def _visible_gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed:
        return [device.strip() for device in listed.split(",") if device.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]
