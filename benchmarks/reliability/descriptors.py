"""Open files do not grow: runs that complete, that are stopped and resumed, that fail and that are
refused, and LoRAs that are inspected, merged and refused, one after the other in one process."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import unziplora
from benchmarks.reliability.faults import Fault, happening
from benchmarks.reliability.small import begin
from unziplora.errors import UnZipLoRAError
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge

_SETTINGS: dict[str, Any] = {"steps": 3, "save_minutes": 1e-9, "preview_every": 2,
                             "preview_steps": 1, "snapshot_every": 2}  # fmt: skip


@dataclass
class Result:
    """files: open after the first round and after the last."""

    rounds: int = 0
    files: tuple[int, int] = (0, 0)
    findings: list[str] = field(default_factory=list)


def run(make_host: Callable[[], Any], folder: Path, rounds: int) -> Result:
    """A round: each of these things once."""
    result = Result()
    for number in range(rounds):
        _round(make_host, folder / f"round{number}")
        gc.collect()
        now = len(os.listdir("/proc/self/fd"))
        result.rounds += 1
        result.files = (result.files[0] or now, now)
    if result.files[1] > result.files[0]:
        result.findings.append(f"open files: {result.files}")
    return result


def _round(make_host: Callable[[], Any], out: Path) -> None:
    list(begin(make_host(), out, **_SETTINGS))
    stopped = begin(make_host(), out, name="stopped", **_SETTINGS)
    stopped.send("stop")
    list(stopped)
    list(unziplora.resume(stopped.folder.path, host=make_host()))
    left = iter(begin(make_host(), out, name="left", **_SETTINGS))
    next(left)
    left.close()  # who reads the events goes away
    with contextlib.suppress(UnZipLoRAError):
        list(begin(make_host(), out, **_SETTINGS))  # its name is taken
    with contextlib.suppress(UnZipLoRAError), happening(Fault("disk full", 4, "once", out)):
        list(begin(make_host(), out, name="full", **_SETTINGS))
    pair = [out / f"pair_{role}.safetensors" for role in ("content", "style")]
    cut = out / "cut.safetensors"
    cut.write_bytes(pair[0].read_bytes()[:-1])
    for path in (*pair, cut, out / "missing.safetensors"):
        with contextlib.suppress(UnZipLoRAError):
            inspect(path)
    for parts in (pair, [pair[0], cut]):
        with contextlib.suppress(UnZipLoRAError):
            merge(out / "both.safetensors", [(path, 1.0) for path in parts])
