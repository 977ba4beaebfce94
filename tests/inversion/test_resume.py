"""An inversion that was stopped or killed goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.inversion.conftest import QUICK
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.load import open_image
from unziplora.inversion.run import InversionRun, InversionStep
from unziplora.inversion.settings import InversionSettings
from unziplora.method.prompts import BRANCHES


@pytest.mark.parametrize("stopped_at", [1, 3, 4, 7, 12])
def test_a_run_that_was_stopped_goes_on_exactly(
    host: StandaloneHost, image_file: Path, tmp_path: Path, stopped_at: int
) -> None:
    """In the first seed's trial, in the second's, between them, and in what follows them."""
    many = InversionSettings("tree", **{**QUICK, "steps": 10, "seeds": 3})

    def begin(out: Path, settings: InversionSettings = many) -> InversionRun:
        out.mkdir(exist_ok=True)
        return InversionRun(open_image(image_file), settings, out)

    whole = list(begin(tmp_path / "whole").on(host))
    first = begin(tmp_path / "parts")
    for event in first.on(host):
        if isinstance(event, InversionStep) and event.step == stopped_at:
            first.send("stop")
    assert first.stopped
    with pytest.raises(InvalidInput, match="of another image or with other settings"):
        begin(tmp_path / "parts", replace(many, lr=0.01))
    rest = list(begin(tmp_path / "parts").on(host))

    def losses(events: list[Any]) -> list[float]:
        return [event.loss for event in events if isinstance(event, InversionStep)]

    assert losses(rest) == losses(whole)[stopped_at:]
    for role in BRANCHES:
        one, two = (
            load_file(tmp_path / n / f"tree_{role}.safetensors") for n in ("whole", "parts")
        )
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    names = {path.name for path in (tmp_path / "parts").rglob("*")}
    assert names == {f"tree_{role}.safetensors" for role in BRANCHES}


def test_a_killed_run_goes_on_from_its_last_state_and_is_refused_another_model(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    killed = run(steps=50, seeds=1).on(host)
    next(event for event in killed if isinstance(event, InversionStep) and event.step == 25)
    with pytest.raises(InvalidInput, match="already running"):
        list(run(steps=50, seeds=1).on(host))
    killed.close()
    identity = host.model
    host.model = replace(identity, sha256="0" * 64)
    try:
        with pytest.raises(InvalidInput, match="an unfinished inversion on another model"):
            list(run(steps=50, seeds=1).on(host))
    finally:
        host.model = identity
    steps = [e.step for e in run(steps=50, seeds=1).on(host) if isinstance(e, InversionStep)]
    assert steps == list(range(21, 51))


def test_a_damaged_state_is_said_and_can_be_overwritten(
    host: StandaloneHost, run: Callable[..., InversionRun], image_file: Path, tmp_path: Path
) -> None:
    stopped = run(steps=30, seeds=1)
    for event in stopped.on(host):
        if isinstance(event, InversionStep) and event.step == 2:
            stopped.send("stop")
    (state,) = tmp_path.rglob("inversion.safetensors")
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(InvalidInput, match="is damaged"):
        run(steps=30, seeds=1)
    chosen = InversionSettings("tree", **{**QUICK, "seeds": 1})
    fresh = InversionRun(open_image(image_file), chosen, tmp_path, overwrite=True)
    steps = [e.step for e in fresh.on(host) if isinstance(e, InversionStep)]
    assert steps == [1, 2, 3, 4, 5]
