"""The files hold the mean of the last steps, and training goes on from the last step's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.training.runs import RUN, begin, hash_of
from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS, same, snapshot
from unziplora.training.events import StepDone
from unziplora.training.memory_forecast import forecast
from unziplora.training.settings import Settings


def run(host: Any, image: Path, out: Path, *, stop_at: int | None = None, **settings: Any) -> None:
    """Without mergers, so that a snapshot of each step has A and B as they are."""
    made = begin(image, host, out, method="m1", snapshot_every=1, average_last=3, **settings)
    for event in made:
        if isinstance(event, StepDone) and event.step == stop_at:
            made.send("stop and save")


def of_step(out: Path, step: int) -> dict[str, Tensor]:
    """Content's A and B after a step; the last one's are in the files of a run without a mean."""
    snapshot = out / RUN / "snapshots" / f"pair-{step:06d}_content.safetensors"
    return load_file(snapshot if step < 6 else out / "plain_content.safetensors")


@pytest.mark.parametrize(("stop_at", "steps"), [(None, [4, 5, 6]), (5, [4, 5])])
def test_the_files_are_the_mean_of_the_last_steps(
    make_host: Any, image_file: Path, tmp_path: Path, stop_at: int | None, steps: list[int]
) -> None:
    run(make_host(), image_file, tmp_path, stop_at=stop_at)
    found = load_file(tmp_path / "pair_content.safetensors")
    if 6 in steps:
        list(begin(image_file, make_host(), tmp_path, name="plain", method="m1"))
    of_steps = [of_step(tmp_path, step) for step in steps]
    for name, tensor in found.items():
        mean = torch.stack([one[name].float() for one in of_steps]).mean(0)
        assert torch.allclose(tensor.float(), mean, rtol=2e-3, atol=1e-6), name  # files are fp16
    ups = [name for name in found if "lora_up" in name]
    assert not all(torch.equal(found[name], of_steps[-1][name]) for name in ups)
    with safe_open(tmp_path / "pair_content.safetensors", framework="pt") as file:
        arguments = json.loads(file.metadata()["ss_network_args"])
    assert arguments["averaged_steps"] == len(steps)


def test_a_run_that_stops_before_the_last_steps_has_that_steps_numbers(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    run(make_host(), image_file, tmp_path, stop_at=3)
    step = tmp_path / RUN / "snapshots" / "pair-000003_content.safetensors"
    assert hash_of(tmp_path / "pair_content.safetensors") == hash_of(step)


@pytest.mark.parametrize("plan", ["full", "selective", "low"])
def test_training_is_that_of_a_run_without_a_mean(documented: dict[str, Any], plan: str) -> None:
    plain = under(plan, documented)
    averaging = under(plan, documented, replace(SETTINGS, average_last=10))
    for _ in range(5):
        assert losses(plain, 1) == losses(averaging, 1)
        with averaging.averaged():
            pass
    tensors = {k: t for k, t in snapshot(averaging).items() if not k.endswith(":sum")}
    assert same(tensors, snapshot(plain))


def test_the_mean_is_that_of_mergers_too_and_only_meanwhile(documented: dict[str, Any]) -> None:
    trainer = under("low", documented, replace(SETTINGS, average_last=10))
    earlier = []
    for step in range(5):
        losses(trainer, 1)
        if step >= 2:
            earlier.append(values(trainer))
    before = snapshot(trainer)
    with trainer.averaged():
        for name, found in values(trainer).items():
            assert torch.allclose(found, torch.stack([one[name] for one in earlier]).mean(0))
    assert same(snapshot(trainer), before)
    moved = [n for n, m in values(trainer).items() if n.endswith(":merger") and (m != 1).any()]
    assert moved


def values(trainer: Any) -> dict[str, Tensor]:
    return {n: p.detach().float().clone() for n, p in trainer.attachment.named_parameters()}


def test_the_forecast_counts_the_sums(host: Any) -> None:
    settings = Settings("cat", "ink", rank=8, resolution=64)
    plain, averaging = (
        forecast(host.unet, host.device, chosen.resolve()).needs["low"]
        for chosen in (settings, replace(settings, average_last=5))
    )
    assert averaging > plain
