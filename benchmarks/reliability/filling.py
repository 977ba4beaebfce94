"""The process whose disk is full. Imported by the server that it is forked from."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.filler import fill, limit_files
from benchmarks.reliability.small import SETTINGS as SMALL
from benchmarks.reliability.small import host_maker
from benchmarks.reliability.small import image as draw
from unziplora import python_api as api
from unziplora.cli.drive import drive
from unziplora.cli.output import lasting_output
from unziplora.errors import UnZipLoRAError
from unziplora.training.run_folder import RunFolder, run_path

STEPS = 5
SETTINGS: dict[str, Any] = {
    **SMALL, "steps": STEPS, "save_minutes": 1e-9, "preview_every": 2, "preview_steps": 1,
    "snapshot_every": 3,
}  # fmt: skip

_make_host = host_maker()


@dataclass(frozen=True)
class Filled:
    """When the disk gets full, and how many bytes are left of it then; else of a file."""

    step: int
    room: int
    by_filler: bool


def train(out: Path, elsewhere: Path, filled: Filled | None) -> None:
    """Begins or resumes the run in `out`, its output in OUT.log beside it, and ends with the code
    of the command line. elsewhere: the folder for temporary files."""
    torch.set_num_threads(1)
    elsewhere.mkdir(exist_ok=True)
    tempfile.tempdir = str(elsewhere)
    draw().save(elsewhere / "image.png")
    with contextlib.suppress(OSError):
        sys.stdout = sys.stderr = open(out.with_name("out.log"), "a", encoding="utf-8")  # noqa: SIM115
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
    with lasting_output():
        code = _train(out, elsewhere / "image.png", filled)
    os._exit(code)  # what is still in the log's buffer cannot be written


def _train(out: Path, image: Path, filled: Filled | None) -> int:
    folder, host = RunFolder(run_path(out, "pair")), _make_host()
    if filled is not None:
        _fill_at(host, out.parent, filled)
    try:
        if folder.has_state:
            return drive(api.resume(folder.path, host=host), "mini")
        words = {"subject": "cat", "style": "ink"}
        run = api.train(image, **words, host=host, settings=SETTINGS, out=out,
                        overwrite=True)  # fmt: skip
        return drive(run, "mini")
    except UnZipLoRAError as error:
        print(error)
        return 2


def _fill_at(host: Any, folder: Path, filled: Filled) -> None:
    real, calls = host.denoise, 0

    def denoise(*inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == filled.step:
            if filled.by_filler:
                fill(folder, filled.room)
            else:
                limit_files(filled.room)
        return real(*inputs)

    host.denoise = denoise
