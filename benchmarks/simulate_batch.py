"""A batch over many workers that share a disk, simulated from the parts of one run.

Workers load, encode, train and save by themselves; what they read and write goes through one disk,
whose rate is shared equally by those who use it at a moment.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

_JITTER = 0.05  # of a step's time from run to run, or all workers would save at the same moments
_FIRST_SHARE, _FIRST_SECONDS = 20, 60.0  # the first state (unziplora/training/clock.py)
_WORK, _DISK = "work", "disk"
_Phase = tuple[str, float]  # seconds of work, or bytes through the disk


@dataclass(frozen=True)
class Parts:
    """What one worker does. seconds: load (once), encode and finish (each image), step. Bytes: of
    the model's file, a state, a pair. save_minutes: from one state to the next."""

    load: float
    encode: float
    step: float
    finish: float
    model_bytes: float
    state_bytes: float
    pair_bytes: float
    steps: int = 600
    save_minutes: float = 5.0

    def saves(self) -> list[float]:
        """After which seconds of training states are saved."""
        total, minutes = self.steps * self.step, 60 * self.save_minutes
        at = min(self.steps // _FIRST_SHARE * self.step, _FIRST_SECONDS, minutes)
        found = []
        while at < total:
            found.append(at)
            at += minutes
        return found

    def bytes_written(self) -> float:
        """Of one image, in all."""
        return len(self.saves()) * self.state_bytes + self.pair_bytes


@dataclass(frozen=True)
class Rate:
    """images an hour of all workers, the share of what as many alone would do, and of the time that
    the disk was busy."""

    workers: int
    images_per_hour: float
    efficiency: float
    disk_busy: float


def scaling(
    parts: Parts, disk: float, counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64), images: int = 8
) -> list[Rate]:
    """For each number of workers; disk: bytes a second; images: for each worker."""
    found: list[Rate] = []
    for workers in counts:
        seconds, busy = simulate(parts, disk, workers, images * workers)
        rate = images * workers / seconds * 3600
        alone = found[0].images_per_hour / found[0].workers if found else rate / workers
        found.append(Rate(workers, rate, rate / (alone * workers), busy / seconds))
    return found


def simulate(parts: Parts, disk: float, workers: int, images: int) -> tuple[float, float]:
    """Seconds until the last image is done, and seconds that the disk was busy. Each worker takes
    the next image of the list, as the driver gives them."""
    left = iter(range(images))
    phases = [_phases(parts, number, left) for number in range(workers)]
    working: list[tuple[float, int]] = []  # when each one's work ends
    moving: dict[int, float] = {}  # bytes that each has still to move
    now = busy = 0.0

    def advance(worker: int) -> None:
        kind, amount = next(phases[worker], ("", 0.0))
        if kind == _WORK:
            heapq.heappush(working, (now + amount, worker))
        elif kind == _DISK:
            moving[worker] = amount

    for worker in range(workers):
        advance(worker)
    while working or moving:
        least = min(moving.values(), default=float("inf"))
        moved_at = now + least * max(1, len(moving)) / disk
        until = min(moved_at, working[0][0] if working else float("inf"))
        share = least if until == moved_at else (until - now) * disk / max(1, len(moving))
        busy += until - now if moving else 0.0
        now = until
        for worker in list(moving):
            moving[worker] -= share
            if moving[worker] <= 0:
                del moving[worker]
                advance(worker)
        while working and working[0][0] <= now:
            advance(heapq.heappop(working)[1])
    return now, busy


def _phases(parts: Parts, worker: int, images: Iterator[int]) -> Iterator[_Phase]:
    rng = random.Random(worker)
    yield _DISK, parts.model_bytes
    yield _WORK, parts.load
    for _ in images:
        run = replace(parts, step=parts.step * rng.uniform(1 - _JITTER, 1 + _JITTER))
        yield _WORK, run.encode
        trained = 0.0
        for at in run.saves():
            yield _WORK, at - trained
            yield _DISK, run.state_bytes
            trained = at
        yield _WORK, run.steps * run.step - trained
        yield _DISK, run.pair_bytes
        yield _WORK, run.finish
