"""Memory that runs out, and listeners that raise, at any place and moment of a run: it goes on, or
stops with its state saved; and the model is as it was, to the byte."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import unziplora
from benchmarks.reliability.small import begin
from benchmarks.results import model_checksum, pair_hashes
from unziplora.errors import UnZipLoRAError
from unziplora.lora.metadata import read_info
from unziplora.training import pair_writer as output
from unziplora.training import run_folder as state
from unziplora.training.events import Event
from unziplora.training.memory_plans import PLANS

SETTINGS: dict[str, Any] = {
    "steps": 4, "save_minutes": 1e-9, "preview_every": 3, "preview_steps": 1, "snapshot_every": 3,
}  # fmt: skip
ERRORS = (
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
)
# where memory runs out: what is replaced, in the host or in a module
PLACES: dict[str, tuple[Any, str]] = {
    "reading the prompts": ("host", "encode_prompts"),
    "reading the image": ("host", "encode_image"),
    "size embeddings": ("host", "added_conditioning"),
    "forward": ("host", "denoise"),
    "backward": (torch.Tensor, "backward"),
    "update": (torch.optim.AdamW, "step"),
    "preview": ("host", "preview"),
    "saving the state": (state, "write_tensors"),
    "writing a LoRA": (output, "save_lora"),
}


@dataclass
class Result:
    """happened: cases in which the place was reached so often."""

    cases: int = 0
    happened: int = 0
    completed: int = 0
    resumed: int = 0
    begun_again: int = 0  # nothing was trained yet
    findings: list[str] = field(default_factory=list)


def memory(
    make_host: Callable[[], Any],
    folder: Path,
    places: list[str],
    calls: list[int],
    plans: list[str],
) -> Result:
    """Each place at each of its calls (from 1), with each plan, with the errors by turns."""
    result, expected = Result(), _undisturbed(make_host, folder)
    for place in places:
        for call in calls:
            for plan in plans:
                error = ERRORS[result.cases % len(ERRORS)]

                def disturb(
                    host: Any, place: str = place, call: int = call, error: Exception = error
                ) -> contextlib.AbstractContextManager[Any]:
                    return _raising(host, place, call, error)

                what = f"{place}, call {call}, plan {plan}, {type(error).__name__}"
                _case(make_host, folder, what, disturb, result, expected, memory=plan)
    return result


def listeners(make_host: Callable[[], Any], folder: Path, every: int = 1) -> Result:
    """The reader of the events raises at each event in turn, or goes away."""
    result, expected = Result(), _undisturbed(make_host, folder)
    events = list(begin(make_host(), folder / "counted", **SETTINGS))
    for number in range(0, len(events), every):
        for away in (False, True):
            what = f"at event {number} ({type(events[number]).__name__}), away {away}"
            _case(make_host, folder, what, None, result, expected, at=(number, away))
    return result


def _differs(out: Path, expected: tuple[str, ...]) -> bool:
    """Whether the pair has other tensors than expected of a run with moments in fp32: where memory
    ran out under `auto`, it continued under a plan with moments in 8 bits, of which none are."""
    plan = read_info(out / "pair_content.safetensors").plan
    exact = plan is not None and not PLANS[plan].eight_bit
    return exact and pair_hashes(out) != expected


def _case(
    make_host: Callable[[], Any],
    folder: Path,
    what: str,
    disturb: Callable[[Any], contextlib.AbstractContextManager[Any]] | None,
    result: Result,
    expected: tuple[str, ...],
    at: tuple[int, bool] | None = None,
    **settings: Any,
) -> None:
    """One run, disturbed, and resumed or begun again where it did not end."""
    out, host = folder / f"case{result.cases}", make_host()
    result.cases += 1
    before = model_checksum(host)
    failed = None
    with disturb(host) if disturb else contextlib.nullcontext() as happened:
        try:
            _read(begin(host, out, **{**SETTINGS, **settings}), at)
        except Exception as error:
            failed = error.with_traceback(None)  # else its frames would hold the run open
    result.happened += bool(at or happened)
    if model_checksum(host) != before:
        result.findings.append(f"{what}: the model is not as it was")
    try:
        if failed is None and at is None:
            result.completed += 1
        elif (out / ".unziplora" / "pair" / "state.safetensors").is_file():
            list(unziplora.resume(out / "pair", host=host))
            result.resumed += 1
        elif not (out / "pair_style.safetensors").is_file():
            list(begin(host, out, **SETTINGS, overwrite=True))
            result.begun_again += 1
        else:
            result.completed += 1
        if _differs(out, expected):
            result.findings.append(f"{what}: other tensors")
    except UnZipLoRAError as error:
        result.findings.append(f"{what}: {failed!r}, then {error}")
    if model_checksum(host) != before:
        result.findings.append(f"{what}: the model is not as it was in the end")
    shutil.rmtree(out, ignore_errors=True)


class _Listener(Exception):
    """What somebody's listener raises."""


def _read(events: Iterator[Event] | Any, at: tuple[int, bool] | None) -> None:
    if at is None:
        list(events)
        return
    number, away = at
    reading = iter(events)
    for count, _ in enumerate(reading):
        if count == number and away:
            reading.close()
            return
        if count == number:
            raise _Listener(count)


@contextlib.contextmanager
def _raising(host: Any, place: str, call: int, error: Exception) -> Iterator[list[int]]:
    owner, name = PLACES[place]
    owner = host if owner == "host" else owner
    real = getattr(owner, name)
    count, happened = 0, []

    def failing(*limit: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            happened.append(call)
            raise error
        return real(*limit, **named)

    with mock.patch.object(owner, name, failing):
        yield happened


def _undisturbed(make_host: Callable[[], Any], folder: Path) -> tuple[str, ...]:
    list(begin(make_host(), folder / "whole", **SETTINGS))
    return pair_hashes(folder / "whole")
