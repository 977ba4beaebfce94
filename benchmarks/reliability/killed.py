"""The process that is killed. Imported by the server that it is forked from, so that everything
heavy is loaded once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.small import begin, host_maker
from unziplora import files as atomic
from unziplora import python_api as api
from unziplora.training.events import StepDone
from unziplora.training.run_folder import RunFolder, run_path

# of a write: half of the data is there; all of it is; the file has its name
MOMENTS = ("half", "whole", "named")
SETTINGS: dict[str, Any] = {
    "steps": 8, "save_minutes": 1e-6, "preview_every": 3, "preview_steps": 1, "snapshot_every": 5,
}  # fmt: skip

_make_host = host_maker()


def train(out: Path, die_at: tuple[int, str] | None = None) -> None:
    """Begins the run in `out`, or goes on with it where there is something to go on from.

    die_at: the number of a write (from 1, of this process) and the moment of it at which the
    process kills itself. Beside `out`, OUT.writes counts the writes.
    """
    torch.set_num_threads(1)
    _count_writes(out.with_name(out.name + ".writes"), die_at)
    host, folder = _make_host(), RunFolder(run_path(out, "pair"))
    if folder.state.is_file():
        events = iter(api.resume(folder.path, host=host))
    elif (out / "pair_style.safetensors").is_file():
        return  # it was killed when all was done
    else:
        events = iter(begin(host, out, **SETTINGS, overwrite=True))
    for event in events:
        if isinstance(event, StepDone):
            with open(out.with_name(out.name + ".steps"), "a", encoding="utf-8") as file:
                file.write(f"{event.step}\n")


def _count_writes(tally: Path, die_at: tuple[int, str] | None) -> None:
    """Around the two system calls by which every file is written (atomic.writing)."""
    sync, replace = atomic._sync, atomic._replace
    count = 0

    def counting_sync(path: Path) -> None:
        nonlocal count
        count += 1
        tally.write_text(str(count), encoding="utf-8")
        if die_at == (count, "half"):
            os.truncate(path, path.stat().st_size // 2)
            _die()
        sync(path)
        if die_at == (count, "whole"):
            _die()

    def dying_replace(temporary: Path, path: Path) -> None:
        replace(temporary, path)
        if die_at == (count, "named"):
            _die()

    atomic._sync, atomic._replace = counting_sync, dying_replace


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
