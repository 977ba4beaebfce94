"""A host whose model others wait for has it between two steps, and the run is as without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import unziplora
from unziplora.errors import UnZipLoRAError
from unziplora.training.events import Finished, GivingWay, Previewed, StateSaved, StepDone
from unziplora.training.memory_plans import PLANS

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 6, "name": "pair", "rank": 2, "lr": 1e-3, "resolution": 64,
            "preview_every": 3, "preview_steps": 1}  # fmt: skip


@pytest.fixture
def make_shared(documented: dict[str, Any]) -> Any:
    """A host of whose steps those in `wanted_at` are followed by someone who waits. meanwhile: what
    is done with the model then."""

    class Shared(documented["MyHost"]):  # type: ignore[misc]
        def __init__(self, wanted_at: set[int], meanwhile: Callable[[Any], None]) -> None:
            super().__init__(documented["small_unet"]())
            self.at = 0
            self._wanted_at, self._meanwhile = wanted_at, meanwhile
            self.plain = [p.requires_grad for p in self.unet.parameters()]

        @contextlib.contextmanager
        def borrow(self) -> Any:
            with contextlib.ExitStack() as self._loan:
                self._loan.enter_context(super().borrow())
                yield

        def wanted(self) -> bool:
            return self.at in self._wanted_at

        def give_way(self, ended: Callable[[], bool]) -> bool:
            self._loan.close()
            assert not any("forward" in module.__dict__ for module in self.unet.modules())
            assert [p.requires_grad for p in self.unet.parameters()] == self.plain
            self._meanwhile(self)
            if ended():
                return False
            self._loan.enter_context(super().borrow())
            return True

    return Shared


def begin(host: Any, image: Path, out: Path, **more: Any) -> unziplora.Run:
    settings = {**SETTINGS, **more}
    return unziplora.train(image, subject="cat", style="ink", host=host, settings=settings, out=out)


def drive(host: Any, run: Any) -> list[Any]:
    events = []
    for event in run:
        events.append(event)
        if isinstance(event, StepDone):
            host.at = event.step
    return events


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{role} {key}": tensor
        for role in ("content", "style")
        for key, tensor in load_file(out / f"pair_{role}.safetensors").items()
    }


@pytest.mark.parametrize("memory", list(PLANS))
def test_others_go_first_and_the_pair_is_the_same(
    make_shared: Any, image_file: Path, tmp_path: Path, memory: str
) -> None:
    def draw(host: Any) -> None:
        host.preview("a house", negative="", size=(64, 64), steps=1, seed=0)

    found = []
    for name, wanted_at in (("alone", set()), ("shared", {2, 3, 6})):
        host = make_shared(wanted_at, draw)
        events = drive(host, begin(host, image_file, tmp_path / name, memory=memory))
        gave_way = [event.step for event in events if isinstance(event, GivingWay)]
        assert gave_way == sorted(wanted_at - {6}), "after the last step nobody has to wait"
        assert sum(isinstance(event, Previewed) for event in events) == 2
        found.append(tensors(tmp_path / name))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("command", ["stop", "stop and save"])
def test_a_run_that_is_stopped_while_others_have_the_model_ends_without_it(
    make_shared: Any, image_file: Path, tmp_path: Path, command: Any
) -> None:
    host = make_shared({2}, lambda _: run.send(command))
    run = begin(host, image_file, tmp_path)
    events = drive(host, run)
    assert isinstance(events[-1], Finished)
    assert events[-1].step == 2
    assert StateSaved(2) in events
    assert bool(events[-1].files) == (command == "stop and save")


def test_where_the_model_is_another_one_afterwards_the_state_is_kept(
    make_shared: Any, image_file: Path, tmp_path: Path
) -> None:
    def change(_: Any) -> None:
        raise UnZipLoRAError("Another checkpoint was loaded. Choose it again.")

    host = make_shared({3}, change)
    run = begin(host, image_file, tmp_path)
    with pytest.raises(UnZipLoRAError, match="Another checkpoint"):
        drive(host, run)
    assert run.folder.saved_step() == 3
    assert not any("forward" in module.__dict__ for module in host.unet.modules())
