"""A long run through the queue, as the page starts it: memory, open files, threads and the time of
a step may not grow after the first steps."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.reliability.small import SETTINGS, image
from benchmarks.results import resident
from unziplora.app.job import ENDED
from unziplora.app.service import Service
from unziplora.training.events import StepDone

SETTLED = 100  # steps
MOST_GROWTH = 40e6  # bytes: allocators breathe
MOST_SLOWER = 1.25


@dataclass
class Result:
    """Each at step 100 and at the end; seconds: of the processor, medians of a step in the 100
    steps from there and in the last 100. events: bytes in memory of a run's events, which the page
    can ask for."""

    steps: int = 0
    memory: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    seconds: tuple[float, float] = (0.0, 0.0)
    events: int = 0
    findings: list[str] = field(default_factory=list)


def run(steps: int, make_host: Callable[[], Any], folder: Path) -> Result:
    """With a save and previews now and then, as people have them."""
    host = make_host()
    service = Service(lambda: host, lambda: folder / "out")
    image().save(folder / "image.png")
    given = {
        **SETTINGS, "subject": "cat", "style": "ink", "steps": steps, "lr": 1e-5,
        "preview_every": max(1, steps // 10), "preview_steps": 1, "save_minutes": 0.5,
    }  # fmt: skip
    measured: list[tuple[int, int, int]] = []
    seconds: list[float] = []
    last = time.process_time()
    earlier = service.jobs.on_event

    def hear(event: Any) -> None:
        earlier(event)
        if isinstance(event, StepDone):
            nonlocal last
            now = time.process_time()
            seconds.append(now - last)
            last = now
            if event.step % SETTLED == 0:
                gc.collect()
                measured.append((resident(), _files(), _threads()))

    service.jobs.on_event = hear
    job = service.start(folder / "image.png", given)
    while job.state not in ENDED:
        time.sleep(0.5)
    result = Result(steps=job.step, events=_size_of(job))
    if job.state != "completed" or len(measured) < 3:
        result.findings.append(f"{job.state}: {job.error}, {len(measured)} measurements")
        return result
    result.memory, result.files, result.threads = (
        (measured[0][n], measured[-1][n]) for n in range(3)
    )
    result.seconds = median(seconds[SETTLED : 2 * SETTLED]), median(seconds[-SETTLED:])
    grown = result.memory[1] - result.memory[0] - result.events
    if grown > MOST_GROWTH:
        result.findings.append(f"memory grew by {grown / 1e6:.0f} MB beside the events")
    if result.files[1] > result.files[0]:
        result.findings.append(f"open files: {result.files}")
    if result.threads[1] > result.threads[0]:
        result.findings.append(f"threads: {result.threads}")
    if result.seconds[1] > MOST_SLOWER * result.seconds[0]:
        result.findings.append(f"processor seconds a step: {result.seconds}")
    return result


def _threads() -> int:
    """Without the one that tqdm starts with a process's first bar, a preview's, and keeps."""
    return sum(thread.name != "tqdm_monitor" for thread in threading.enumerate())


def _files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _size_of(job: Any) -> int:
    """A step's event: the object, its dictionary, its numbers, and that of the open columns."""
    return len(job.events()) * 1200
