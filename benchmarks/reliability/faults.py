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
from unziplora import files as atomic
from unziplora.errors import UnZipLoRAError
from unziplora.lora.inspect import inspect
from unziplora.lora.tensor_file import read_metadata
from unziplora.training.events import Event, Finished, LorasSaved, Message
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


def run(make_host: Callable[[], Any], folder: Path, kinds: list[str], every: int = 1) -> Result:
    """Every kind at every write (or every `every`-th), once and lasting."""
    result = Result()
    whole = Fault("clock set back", 10**9, "once", folder / "whole")
    with happening(whole):
        list(begin(make_host(), folder / "whole", **SETTINGS))
    for kind in kinds:
        for at in range(1, whole.count + 1, every):
            for lasting in LASTING:
                case = folder / f"case{result.cases}"
                result.cases += 1
                found = _case(make_host, case, Fault(kind, at, lasting, case), result)
                expected = _hashes(folder / "whole")
                if found is not None and found != expected:
                    result.findings.append(f"{kind} at write {at} {lasting}: other tensors")
                shutil.rmtree(case, ignore_errors=True)
    return result


def _case(
    make_host: Callable[[], Any], out: Path, fault: Fault, result: Result
) -> tuple[str, ...] | None:
    """One run with a fault, resumed without it if it failed; the hashes that it ended with."""
    events: list[Event] = []
    last_good = b""
    fallback_folder: list[Path] = []

    def complain(what: str) -> None:
        result.findings.append(f"{fault.kind} at write {fault.at} {fault.lasting}: {what}")

    made = None
    with happening(fault), mock.patch.object(tempfile, "mkdtemp", _noting(fallback_folder)):
        try:
            made = begin(make_host(), out, **SETTINGS)
            for event in made:
                events.append(event)
                state = out / ".unziplora" / "pair" / "state.safetensors"
                if state.is_file():
                    last_good = state.read_bytes()
                elif last_good and "removed" not in fault.kind and not _over(events):
                    complain("the earlier state is gone")
        except UnZipLoRAError as error:
            if not any(type(event).__name__ == "StepDone" for event in events):
                result.refused += 1
                return None
            failure: str | None = str(error)
        except Exception as error:
            complain(f"{type(error).__name__}: {error}")
            return None
        else:
            failure = None
    if "full" in fault.kind and fault.happened and failure is None and not _said(events):
        complain("nothing was said")
    if fault.too_late:
        result.completed += failure is None
        return None
    if left := [path.name for path in out.rglob(".*") if path.name != HIDDEN]:
        complain(f"{left} were left")
    try:
        if failure is None:
            result.completed += 1
            files = [e for e in events if isinstance(e, LorasSaved) and not e.snapshot][-1].files
            result.elsewhere += bool(fallback_folder)
            where = next(iter(files.values())).parent
        else:
            result.failed += 1
            folder = made.kept_in if made is not None else run_path(out, "pair")
            list(unziplora.resume(folder, host=make_host()))
            where = RunFolder(folder).out
        for role in ("content", "style"):
            if inspect(where / f"pair_{role}.safetensors").hash_matches is not True:
                complain(f"the {role} file is damaged")
        return _hashes(where)
    except UnZipLoRAError as error:
        complain(f"after {failure}: {error}")
        return None
    finally:
        for path in fallback_folder:
            shutil.rmtree(path, ignore_errors=True)


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


def _said(events: list[Event]) -> bool:
    return any(isinstance(event, Message) for event in events)


def _hashes(out: Path) -> tuple[str, ...]:
    return tuple(
        read_metadata(out / f"pair_{role}.safetensors").get("sshs_model_hash", "missing")
        for role in ("content", "style")
    )
