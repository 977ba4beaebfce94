"""SIGINT, SIGTERM and SIGHUP at every kind of moment of a run, and at random ones: the state is
saved, the process ends with the signal's code, and what is resumed ends as if nothing had been."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.reliability.kills import damaged_files
from benchmarks.reliability.signalled import train
from benchmarks.results import pair_hashes
from unziplora.training.run_folder import HIDDEN, RunFolder, run_path

SIGNALS = [signal.SIGINT, signal.SIGTERM]
SIGNALS += [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
CALLS = (1, 2, 5)
RANDOM = ""  # the moment of a signal that comes from outside


@dataclass
class Result:
    """saved: with a state of the last whole step. nothing_yet: before the first step. completed:
    the pair was being written, or was. before: the process was not yet the run. slowest: seconds
    from a signal of another process to the end."""

    signals: int = 0
    saved: int = 0
    nothing_yet: int = 0
    completed: int = 0
    before: int = 0
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


def at_moments(
    folder: Path, number: signal.Signals, moments: Sequence[str], calls: Sequence[int] = CALLS
) -> Result:
    """The signal at each moment, when it comes for each of these times."""
    sender = _Sender(_server(), folder)
    for moment, nth in itertools.product(moments, calls):
        sender.case(number, moment, nth)
    return sender.result


def at_random(folder: Path, number: signal.Signals, count: int) -> Result:
    """So many signals from another process."""
    sender = _Sender(_server(), folder)
    for _ in range(count):
        sender.case(number, RANDOM, 0)
    return sender.result


@dataclass
class _Server:
    """forks: processes from one that has everything loaded. seconds, hashes: an undisturbed run's
    time and tensors."""

    forks: Any
    seconds: float = 0.0
    hashes: tuple[str, ...] = ()

    def process(self, *arguments: Any) -> Any:
        process = self.forks.Process(target=train, args=arguments)
        process.start()
        return process


@cache
def _server() -> _Server:
    server = _Server(get_context("forkserver"))
    server.forks.set_forkserver_preload(["benchmarks.reliability.signalled"])
    with tempfile.TemporaryDirectory() as folder:
        server.process(Path(folder) / "first").join()  # which waits for what is loaded
        began = time.monotonic()
        server.process(Path(folder) / "timed").join()
        server.seconds = time.monotonic() - began
        server.hashes = pair_hashes(Path(folder) / "timed")
    return server


class _Sender:
    def __init__(self, server: _Server, folder: Path) -> None:
        self.result = Result()
        self._folder, self._server, self._random = folder, server, Random(0)

    def case(self, number: signal.Signals, moment: str, nth: int) -> None:
        result = self.result
        out = self._folder / f"case{result.signals}"
        what = f"{number.name}, {moment or 'at random'}, {nth}"
        result.signals += 1
        if moment == RANDOM:
            process = self._server.process(out)
            process.join(self._random.uniform(0, self._server.seconds))
            sent = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
            process.join()
            result.slowest = max(result.slowest, round(time.monotonic() - sent, 2))
        else:
            process = self._server.process(out, number.value, moment, nth)
            process.join()
        self._judge(out, number, process.exitcode, what, outside=moment == RANDOM)
        if not (out / "pair_style.safetensors").is_file():
            self._server.process(out).join()
        if pair_hashes(out) != self._server.hashes:
            result.findings.append(f"{what}: other tensors in the end")
        if left := [path.name for path in out.rglob(".*") if path.name != HIDDEN]:
            result.findings.append(f"{what}: {left} were left")

    def _judge(self, out: Path, number: int, code: int, what: str, *, outside: bool) -> None:
        result, folder = self.result, RunFolder(run_path(out, "pair"))
        result.findings += [f"{what}: {fault}" for fault in damaged_files(out)]
        whole = (out / "pair_style.safetensors").is_file()
        steps, saved = len(folder.read_progress()), folder.saved_step()
        if code == 0 and whole:
            result.completed += 1
        elif outside and code in (-number, 1) and not steps:
            result.before += 1
        elif code != 128 + number:
            result.findings.append(f"{what}: the process ended with {code}")
        elif saved is None and not steps:
            result.nothing_yet += 1
        elif saved == steps:
            result.saved += 1
        else:
            result.findings.append(f"{what}: step {saved} is saved of {steps}")
