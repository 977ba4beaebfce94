"""A fault at every write in turn: the run goes on where it can, says what is wrong, keeps what it
has learned, and what lay there before is as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import unziplora
from benchmarks.reliability.small import begin
from benchmarks.results import pair_hashes
from unziplora import files as atomic
from unziplora.errors import UnZipLoRAError
from unziplora.lora.inspect import inspect
from unziplora.training.events import Event, Finished, LorasSaved, Message, StepDone
from unziplora.training.run import Run
from unziplora.training.run_folder import HIDDEN, RunFolder, run_path

SETTINGS: dict[str, Any] = {
    "steps": 3, "save_minutes": 1e-9, "preview_every": 2, "preview_steps": 1, "snapshot_every": 2,
}  # fmt: skip
LASTING = ("once", "from then on")


@dataclass
class Result:
    """elsewhere: what was saved in another folder; failed: runs that ended with an error, their
    state saved."""

    cases: int = 0
    completed: int = 0
    elsewhere: int = 0
    failed: int = 0
    refused: int = 0  # at its first write, when there was nothing to lose
    findings: list[str] = field(default_factory=list)


class Fault:
    """What happens to writes below `out`, from the `at`-th on (from 1), or then only."""

    def __init__(self, kind: str, at: int, lasting: str, out: Path) -> None:
        self.kind, self.at, self.lasting, self.out = kind, at, lasting, out
        self.count = 0
        self.happened = False
        self.too_late = False  # what was removed was what the run had to leave

    def strike(self, path: Path) -> None:
        """Called when the data of a temporary file is written, before it takes its name."""
        if self.out not in path.parents:
            return
        self.count += 1
        if self.count < self.at or (self.count > self.at and self.lasting == "once"):
            return
        self.happened = True
        KINDS[self.kind](self, path)


def _full(fault: Fault, path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    raise OSError(errno.ENOSPC, "No space left on device")


def _read_only(fault: Fault, path: Path) -> None:
    path.unlink()
    raise OSError(errno.EROFS, "Read-only file system")


def _locked(fault: Fault, path: Path) -> None:
    raise PermissionError(errno.EACCES, "The process cannot access the file")


def _run_folder_gone(fault: Fault, path: Path) -> None:
    shutil.rmtree(run_path(fault.out, "pair"))


def _output_folder_gone(fault: Fault, path: Path) -> None:
    fault.too_late = any(fault.out.glob("pair_style.safetensors"))
    shutil.rmtree(fault.out)


def _clock(fault: Fault, path: Path) -> None:
    """The clock is set back; see `happening`."""


KINDS: dict[str, Callable[[Fault, Path], None]] = {
    "disk full": _full,
    "read-only": _read_only,
    "file locked": _locked,
    "run's folder removed": _run_folder_gone,
    "output folder removed": _output_folder_gone,
    "clock set back": _clock,
}


@contextlib.contextmanager
def happening(fault: Fault) -> Iterator[None]:
    """The write layer (atomic.writing's last two calls, and the clock) with a fault in it."""
    sync, now = atomic._sync, time.time

    def struck(path: Path) -> None:
        fault.strike(path)
        sync(path)

    def clock() -> float:
        back = fault.kind == "clock set back" and fault.happened
        return now() - (86400 * 365 if back else 0)

    with mock.patch.object(atomic, "_sync", struck), mock.patch("time.time", clock):
        yield


def run(
    make_host: Callable[[], Any], folder: Path, kind: str, every: int = 1, first: int = 1
) -> Result:
    """A kind of fault at every write (every `every`-th, from the `first`), once and lasting."""
    result = Result()
    whole = Fault("clock set back", 10**9, "once", folder / "whole")
    with happening(whole):
        list(begin(make_host(), folder / "whole", **SETTINGS))
    for at in range(first, whole.count + 1, every):
        for lasting in LASTING:
            case = folder / f"case{result.cases}"
            result.cases += 1
            found = _case(make_host, case, Fault(kind, at, lasting, case), result)
            expected = pair_hashes(folder / "whole")
            if found is not None and found != expected:
                result.findings.append(f"{kind} at write {at} {lasting}: other tensors")
            shutil.rmtree(case, ignore_errors=True)
    return result


def _case(
    make_host: Callable[[], Any], out: Path, fault: Fault, result: Result
) -> tuple[str, ...] | None:
    """One run with a fault, resumed without it if it failed; the hashes that it ended with, or
    None where it did not end."""

    def complain(what: str) -> None:
        result.findings.append(f"{fault.kind} at write {fault.at} {fault.lasting}: {what}")

    case = _Case(make_host, out, fault, complain)
    try:
        if not case.run():
            result.refused += 1
            return None
        if fault.too_late:
            result.completed += case.failure is None
            return None
        if left := [path.name for path in out.rglob(".*") if path.name != HIDDEN]:
            complain(f"{left} were left")
        if case.failure is None:
            result.completed += 1
            result.elsewhere += bool(case.fallback_folders)
        else:
            result.failed += 1
        where = case.finish()
        for role in ("content", "style"):
            if inspect(where / f"pair_{role}.safetensors").hash_matches is not True:
                complain(f"the {role} file is damaged")
        return pair_hashes(where)
    except Exception as error:  # whatever it is, it is a finding
        complain(f"{type(error).__name__}: {error} (before it: {case.failure})")
        return None
    finally:
        for path in case.fallback_folders:
            shutil.rmtree(path, ignore_errors=True)


class _Case:
    """A run with a fault. failure: what it failed with; fallback_folders: where else it saved."""

    def __init__(
        self,
        make_host: Callable[[], Any],
        out: Path,
        fault: Fault,
        complain: Callable[[str], None],
    ) -> None:
        self.failure: str | None = None
        self.fallback_folders: list[Path] = []
        self._make_host, self._out, self._fault = make_host, out, fault
        self._complain = complain
        self._run: Run | None = None
        self._events: list[Event] = []
        self._state_seen = False

    def run(self) -> bool:
        """False where it was refused before its first step."""
        fallback = mock.patch.object(tempfile, "mkdtemp", _noting(self.fallback_folders))
        with happening(self._fault), fallback:
            try:
                self._run = begin(self._make_host(), self._out, **SETTINGS)
                for event in self._run:
                    self._events.append(event)
                    self._look_for_state()
            except UnZipLoRAError as error:
                if not any(isinstance(event, StepDone) for event in self._events):
                    return False
                self.failure = str(error)
        unseen = self._fault.happened and self.failure is None and not _reported(self._events)
        if "full" in self._fault.kind and unseen:
            self._complain("nothing was reported")
        return True

    def _look_for_state(self) -> None:
        if (run_path(self._out, "pair") / "state.safetensors").is_file():
            self._state_seen = True
        elif self._state_seen and "removed" not in self._fault.kind and not _over(self._events):
            self._complain("the earlier state is gone")

    def finish(self) -> Path:
        """The folder with both files; a run that failed is resumed first."""
        if self.failure is None:
            saved = [e for e in self._events if isinstance(e, LorasSaved) and not e.snapshot]
            return next(iter(saved[-1].files.values())).parent
        folder = self._run.kept_in if self._run is not None else run_path(self._out, "pair")
        list(unziplora.resume(folder, host=self._make_host()))
        return RunFolder(folder).out


def _noting(made: list[Path]) -> Callable[..., str]:
    real = tempfile.mkdtemp

    def mkdtemp(*given: Any, **named: Any) -> str:
        path = real(*given, **named)
        made.append(Path(path))
        return path

    return mkdtemp


def _over(events: list[Event]) -> bool:
    return any(isinstance(e, (Finished, LorasSaved)) and not getattr(e, "snapshot", 0)
               for e in events)  # fmt: skip


def _reported(events: list[Event]) -> bool:
    return any(isinstance(event, Message) for event in events)
