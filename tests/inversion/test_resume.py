"""An inversion that was stopped or killed goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.inversion.conftest import QUICK
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.load import open_image
from unziplora.inversion.run import InversionMessage, InversionRun, InversionStep
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


def stopped(inversion: InversionRun, host: StandaloneHost, step: int) -> list[Any]:
    events = []
    for event in inversion.on(host):
        events.append(event)
        if isinstance(event, InversionStep) and event.step == step:
            inversion.send("stop")
    return events


def test_files_that_somebody_else_put_there_meanwhile_are_kept(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    stopped(run(steps=30, seeds=1), host, 2)
    theirs = tmp_path / "tree_style.safetensors"
    theirs.write_bytes(b"another's")
    with pytest.raises(InvalidInput, match=r"tree_style\.safetensors exists already"):
        run(steps=30, seeds=1)
    assert theirs.read_bytes() == b"another's"


def test_a_state_that_the_disk_refuses_is_said_once_and_costs_no_step(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    events = []
    for event in run(steps=70, seeds=1).on(host):
        if not events:
            (tmp_path / ".unziplora" / "tree" / "inversion.safetensors").mkdir()
        events.append(event)
    messages = [event.text for event in events if isinstance(event, InversionMessage)]
    assert len([text for text in messages if "inversion.safetensors" in text]) == 1, messages
    assert sum(isinstance(event, InversionStep) for event in events) == 70
    assert (tmp_path / "tree_style.safetensors").is_file()


def test_a_state_whose_tensors_do_not_fit_is_called_damaged(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    stopped(run(steps=30, seeds=1), host, 2)
    (state,) = tmp_path.rglob("inversion.safetensors")
    with safe_open(state, "pt") as file:
        said = file.metadata()
    tensors = load_file(state)
    for wrong in (
        {**tensors, "0/random": torch.zeros(3, dtype=torch.uint8)},
        {**tensors, "0/0.vector": torch.zeros(5)},
        {name: tensor for name, tensor in tensors.items() if name != "0/1.exp_avg"},
    ):
        save_file(wrong, state, said)
        with pytest.raises(InvalidInput, match=r"is damaged\. Add --overwrite"):
            list(run(steps=30, seeds=1).on(host))


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
