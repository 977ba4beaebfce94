"""A run is killed (SIGKILL) again and again, at any moment and in the middle of writes, and resumed
until it ends. It must end with the tensors of an undisturbed run, and nothing partial may ever lie
among the LoRA files."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.trust.small import begin, host_maker
from unziplora import api, atomic
from unziplora.errors import BadInput
from unziplora.lora.inspect import inspect
from unziplora.training.events import StepDone
from unziplora.training.state import RunFolder

STEPS = 12
SETTINGS: dict[str, Any] = {"steps": STEPS, "save_minutes": 1e-6, "preview_every": 5}
SLOW_DISK = 0.02  # seconds that each write waits before its file takes its name
MOST_SECONDS = 120.0  # for a run that nobody kills


@dataclass
class Result:
    kills: int = 0
    in_writes: int = 0  # a temporary file lay there when the process died
    runs: int = 0
    repeated_steps: list[int] = field(default_factory=list)  # after each kill
    findings: list[str] = field(default_factory=list)


def run(kills: int, folder: Path, seed: int = 0) -> Result:
    """Runs on the small host, each killed about six times, until `kills` are reached."""
    rng, result = Random(seed), Result()
    server = get_context("forkserver")
    server.set_forkserver_preload([__name__])
    expected = _undisturbed(server, folder / "undisturbed")
    while result.kills < kills:
        out = folder / f"run{result.runs}"
        result.runs += 1
        for _ in range(rng.randint(3, 9)):
            if not _killed(server, out, rng, result):
                break
        _finish(server, out)
        _check(out, result)
        if (found := _hashes(out)) != expected:
            result.findings.append(f"{out.name}: ended with {found} instead of {expected}")
    return result


def child(out: str) -> None:
    """Begins the run, or goes on with it where it can."""
    import torch

    torch.set_num_threads(1)
    sync: Callable[[Path], None] = atomic._sync

    def slow(path: Path) -> None:
        sync(path)
        time.sleep(SLOW_DISK)

    atomic._sync = slow
    host, folder = host_maker()(), Path(out)
    try:
        made = api.resume(folder / "pair", host=host)
        for event in made:
            _note(folder, event)
    except BadInput:  # killed before the first save: nothing is there to go on from
        for event in begin(host, folder, **SETTINGS, overwrite=True):
            _note(folder, event)


def _note(folder: Path, event: object) -> None:
    if isinstance(event, StepDone):
        with open(folder.with_name(folder.name + ".steps"), "a", encoding="utf-8") as file:
            file.write(f"{event.step}\n")


def _killed(server: Any, out: Path, rng: Random, result: Result) -> bool:
    """Starts the run and kills it, at a random moment or when a write is seen. False: it ended."""
    process = server.Process(target=child, args=(str(out),))
    process.start()
    wait = rng.uniform(0.3, 2.5)
    for_write = rng.random() < 0.6
    began = time.monotonic()
    while process.is_alive() and time.monotonic() - began < wait + (5 if for_write else 0):
        if for_write and time.monotonic() - began > wait and _writing(out):
            break
        time.sleep(0.001)
    ended = not process.is_alive()
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    if ended:
        return False
    result.kills += 1
    result.in_writes += bool(_writing(out))
    _check(out, result)
    result.repeated_steps.append(_repeated(out))
    return True


def _finish(server: Any, out: Path) -> None:
    process = server.Process(target=child, args=(str(out),))
    process.start()
    process.join(MOST_SECONDS)
    if process.is_alive():
        process.kill()
    process.join()


def _undisturbed(server: Any, out: Path) -> tuple[str, ...]:
    _finish(server, out)
    return _hashes(out)


def _writing(out: Path) -> list[Path]:
    return list(out.rglob(".*.tmp"))


def _check(out: Path, result: Result) -> None:
    """Every file that has its name is whole."""
    for path in out.glob("*.safetensors"):
        try:
            if inspect(path).hash_matches is not True:
                result.findings.append(f"{out.name}: {path.name} is not what its hash says")
        except BadInput as error:
            result.findings.append(f"{out.name}: {error}")
    folder = RunFolder(out / "pair")
    for read in (folder.read_info, folder.read_state):
        try:
            read()
        except BadInput as error:
            if "damaged" in str(error):
                result.findings.append(f"{out.name}: {error}")


def _repeated(out: Path) -> int:
    """Steps between the last save and the kill."""
    steps = out.with_name(out.name + ".steps")
    done = int(steps.read_text().split()[-1]) if steps.exists() and steps.read_text() else 0
    try:
        _, numbers = RunFolder(out / "pair").read_state()
    except BadInput:
        return done if not list(out.glob("*.safetensors")) else 0
    return max(0, done - int(numbers["step"]))


def _hashes(out: Path) -> tuple[str, ...]:
    from unziplora.lora.read import read_metadata

    return tuple(
        read_metadata(out / f"pair_{role}.safetensors").get("sshs_model_hash", "missing")
        for role in ("content", "style")
    )
