"""A branch alone should change nothing under a prompt that does not call it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_loss_weights import gradients
from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS
from unziplora.method.forward_mode import Pass
from unziplora.training.memory_forecast import forecast
from unziplora.training.memory_plans import PLANS, Plan
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer

LEAKING = replace(SETTINGS, method="m1", leak_penalty=1.0, leak_every=1)


@pytest.mark.parametrize(
    ("words", "prompts"),
    [
        (("cat", "ink"), ["an image in oil painting style", "a house"]),
        (("a House", "Oil pastel"), ["an image in pencil sketch style", "a tree"]),
    ],
)
def test_the_prompts_call_neither_subject_nor_style(words: Any, prompts: list[str]) -> None:
    assert list(Settings(*words, leak_penalty=1).leak_prompts.values()) == prompts
    assert not Settings(*words).leak_prompts
    own = Settings(*words, leak_penalty=1, leak_prompt_content="a photo", leak_prompt_style="fog")
    assert list(own.leak_prompts.values()) == ["a photo", "fog"]


class Calls:
    """Every call of a host's denoise: latents, timestep and context."""

    def __init__(self, trainer: Trainer) -> None:
        self.inputs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.results: list[Tensor] = []
        self._denoise = trainer.host.denoise
        trainer.host.denoise = self._noting

    def _noting(self, latents: Tensor, t: Tensor, context: Tensor, added: Any) -> Tensor:
        self.inputs.append((latents, t, context))
        result: Tensor = self._denoise(latents, t, context, added)
        self.results.append(result)
        return result


def test_its_gradient_is_that_of_each_branch_against_the_base(documented: dict[str, Any]) -> None:
    def of_weight(weight: float) -> tuple[Trainer, dict[str, Tensor], Calls]:
        trainer = under("full", documented, replace(LEAKING, leak_penalty=weight, lr=1e-2))
        losses(trainer, 1)  # B is no longer zero
        calls = Calls(trainer)
        return trainer, gradients(trainer), calls

    (_, once, _), (trainer, twice, calls) = of_weight(1.0), of_weight(2.0)
    leak: dict[str, Tensor] = {}
    before: list[tuple[Any, str]] = [("content", "other style"), ("style", "other class")]
    fresh = under("full", documented, replace(LEAKING, lr=1e-2))
    losses(fresh, 1)
    for place, (branch, prompt) in zip((0, 2), before, strict=True):
        latents, t, context = calls.inputs[place]
        assert all(map(torch.equal, calls.inputs[place], calls.inputs[place + 1]))
        assert not calls.results[place].requires_grad
        mode, i = fresh.attachment.mode, 3 + place // 2
        assert torch.equal(context, fresh.encoded.context[i : i + 1])
        added = fresh.host.added_conditioning(fresh.encoded.pooled[i : i + 1], fresh.encoded.sizes)
        mode.use_pass(Pass(prompt, {branch: prompt}))  # type: ignore[arg-type]
        alone = fresh.host.denoise(latents, t, context, added)
        (alone - calls.results[place]).square().mean().backward()
    for name, parameter in fresh.attachment.named_parameters():
        if parameter.grad is not None:
            leak[name] = parameter.grad
    assert {name.split(":")[1] for name in leak} == {"content", "style"}
    for name, expected in leak.items():
        assert (twice[name] - once[name] - expected).norm() <= 0.02 * expected.norm(), name
    assert trainer.step == 2


def test_it_is_computed_every_kth_step_and_never_in_a_window(documented: dict[str, Any]) -> None:
    trainer = under("full", documented, replace(SETTINGS, leak_penalty=1.0, leak_every=2))
    calls, counts = Calls(trainer), []
    for _ in range(8):
        losses(trainer, 1)
        counts.append(len(calls.inputs) - sum(counts))
    # t = 4, W = 2: steps 0, 1, 4 and 5 measure
    assert counts == [1, 1, 1, 5, 1, 1, 1, 5]


def test_a_plan_that_updates_in_the_backward_pass_updates_once_with_all(
    documented: dict[str, Any],
) -> None:
    """Adam's first update is the gradient's sign, where the penalty outweighs everything else."""

    def after(plan: Plan, weight: float) -> dict[str, Tensor]:
        settings = replace(LEAKING, init="random", leak_penalty=weight, max_grad_norm=1e6)
        trainer = under(plan, documented, settings)
        before = {n: p.detach().clone() for n, p in trainer.attachment.named_parameters()}
        losses(trainer, 1)
        parameters = trainer.attachment.named_parameters()
        return {n: p.detach() - before[n] for n, p in parameters if not n.endswith(":merger")}

    small = Plan("small", in_backward=True)
    found, expected = after(small, 1e4), after(PLANS["selective"], 1e4)
    without = after(small, 1e-9)
    agree, agree_without = [], []
    for name, move in expected.items():
        agree.append((found[name].sign() == move.sign()).float().mean())
        agree_without.append((without[name].sign() == move.sign()).float().mean())
    assert torch.stack(agree).mean() > 0.95
    assert torch.stack(agree_without).mean() < 0.8


def test_the_forecast_counts_the_gradients_that_wait(host: Any) -> None:
    settings = Settings("cat", "ink", rank=8, resolution=64)
    plain, leaking = (
        forecast(host.unet, host.device, chosen.resolve()).needs
        for chosen in (settings, replace(settings, leak_penalty=1.0))
    )
    assert leaking["low"] > plain["low"]
    assert leaking["full"] == plain["full"]
