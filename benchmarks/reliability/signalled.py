"""The process that gets a signal. Imported by the server that it is forked from."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.shortages import PLACES
from benchmarks.reliability.small import begin, host_maker
from unziplora import files as atomic
from unziplora import python_api as api
from unziplora.cli.drive import drive
from unziplora.training.run_folder import RunFolder, run_path

SETTINGS: dict[str, Any] = {
    "steps": 4, "save_minutes": 60, "preview_every": 2, "preview_steps": 1, "snapshot_every": 3,
}  # fmt: skip
# of every write: its data is there; it takes its name
WRITES = {"a file's data is written": "_sync", "a file gets its name": "_replace"}
_LAST = ("preview", "saving the state", "writing a LoRA")
MOMENTS = {
    "reads and trains": tuple(place for place in PLACES if place not in _LAST),
    "draws and writes": (*_LAST, *WRITES),
}

_make_host = host_maker()


def train(out: Path, number: int = 0, moment: str = "", nth: int = 1) -> None:
    """Begins the run in `out` or resumes it, as the command line does, and ends with its code.

    number: of the signal that the process sends itself when `moment` comes the nth time.
    """
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    host, folder = _make_host(), RunFolder(run_path(out, "pair"))
    if moment:
        _send_at(host, number, moment, nth)
    if folder.has_state:
        run = api.resume(folder.path, host=host)
    else:
        run = begin(host, out, **SETTINGS, overwrite=True)
    sys.exit(drive(run, "mini"))


def _send_at(host: Any, number: int, moment: str, nth: int) -> None:
    owner, name = PLACES[moment] if moment in PLACES else (atomic, WRITES[moment])
    owner = host if owner == "host" else owner
    real: Callable[..., Any] = getattr(owner, name)
    count = 0

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth:
            signal.raise_signal(number)
        return real(*given, **named)

    setattr(owner, name, interrupted)
