"""An error at every line of what borrows a model and puts it back: is the model what it was?

Each line of unziplora/unet that runs while a UNet is borrowed, attached and under a memory plan,
and while all of that ends, raises once (by `sys.settrace`): an ordinary error, a full memory, an
interruption. Afterwards everything of the model is compared: values, types, flags, hooks, forwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import unziplora.unet
from unziplora.errors import ModelDamaged
from unziplora.method.methods import METHODS, table_for
from unziplora.training.memory_plans import PLANS
from unziplora.unet.attach import attach
from unziplora.unet.changes import borrowed, is_changed
from unziplora.unet.patches import frozen, in_eval_mode, normal_tensors, out_of_place

ERRORS: dict[str, Callable[[], BaseException]] = {
    "an error": lambda: RuntimeError("injected"),
    "a full memory": lambda: torch.cuda.OutOfMemoryError("injected"),
    "an interruption": KeyboardInterrupt,
}
_TRACED = str(Path(unziplora.unet.__file__).parent)
Line = tuple[str, int]


@dataclass
class Found:
    """lines: where an error was raised, by how it went: the model was whole at once, when it was
    used next, or was declared damaged."""

    at_once: int = 0
    at_next_use: int = 0
    declared_damaged: int = 0
    findings: list[str] = field(default_factory=list)


def run(
    make_unet: Callable[[], nn.Module],
    plan: str,
    error: str,
    *,
    every: int = 1,
    forge: bool = False,
    full_in_between: bool = False,
) -> Found:
    """every: of the lines that run, each n-th. forge: inference tensors, and blocks that add in
    place. full_in_between: the memory is full at the step itself, too."""
    found, unet = Found(), make_unet()
    before = fingerprint(unet)
    seen: dict[Line, int] = {}
    with _traced(lambda line: seen.update({line: seen.get(line, 0) + 1})):
        _borrowed(unet, plan, forge, full_in_between)
    assert fingerprint(unet) == before
    for line, times in list(seen.items())[::every]:
        for nth in {1, times}:
            _inject(unet, plan, forge, full_in_between, line, nth, ERRORS[error])
            if fingerprint(unet) == before and not is_changed(unet):
                found.at_once += 1
                continue
            try:
                with borrowed(unet):
                    pass
            except ModelDamaged:
                found.declared_damaged += 1
                unet = make_unet()
                continue
            if fingerprint(unet) == before and not is_changed(unet):
                found.at_next_use += 1
            else:
                place = f"{Path(line[0]).name}:{line[1]}"
                found.findings.append(f"{plan}, {error} at {place} ({nth}): not what it was")
                unet = make_unet()
    return found


def fingerprint(unet: nn.Module) -> str:
    """Of all that a run may change: weights, their types and flags, modes, hooks and forwards."""
    digest = hashlib.sha256()
    for name, module in unet.named_modules():
        own = sorted(key for key in module.__dict__ if not key.startswith("_unziplora"))
        forward = module.__dict__.get("forward")
        digest.update(f"{name} {own} {module.training} {id(forward)}".encode())
        digest.update(f"{len(module._forward_pre_hooks)} {len(module._forward_hooks)}".encode())
        for store in (module._parameters, module._buffers):
            for key, tensor in store.items():
                if tensor is None:
                    continue
                kind = f"{key} {type(tensor)} {tensor.dtype} {tensor.is_inference()}"
                digest.update(f"{kind} {tensor.requires_grad} {id(tensor)}".encode())
                digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _borrowed(unet: nn.Module, plan: str, forge: bool, full: bool) -> None:
    """What a run does around its steps; the step itself does nothing, or finds the memory full."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(borrowed(unet))
        stack.enter_context(in_eval_mode(unet))
        if forge:
            stack.enter_context(normal_tensors(unet))
        stack.enter_context(frozen(unet))
        if forge:
            stack.enter_context(out_of_place(unet))
        attachment = attach(
            unet, METHODS["unziplora"], table_for("sdxl-like"), rank=1, alpha=1, init="zero",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        stack.callback(attachment.detach)
        with contextlib.suppress(torch.cuda.OutOfMemoryError), PLANS[plan].on(unet, attachment):
            if full:
                raise torch.cuda.OutOfMemoryError("at the step")


def _inject(
    unet: nn.Module,
    plan: str,
    forge: bool,
    full: bool,
    line: Line,
    nth: int,
    error: Callable[[], BaseException],
) -> None:
    reached = 0

    def at(here: Line) -> None:
        nonlocal reached
        if here == line:
            reached += 1
            if reached == nth:
                raise error()

    with contextlib.suppress(BaseException), _traced(at):
        _borrowed(unet, plan, forge, full)


@contextlib.contextmanager
def _traced(at: Callable[[Line], Any]) -> Iterator[None]:
    """Calls `at` before each line of unziplora/unet that runs."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            at((frame.f_code.co_filename, frame.f_lineno))
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(_TRACED) else None

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(earlier)
