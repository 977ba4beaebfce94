"""A weight for each branch is that branch's own loss weighted, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.torch_versions import hooks_in_backward
from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS, same, snapshot
from unziplora.errors import InvalidInput
from unziplora.training.memory_plans import PLANS
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer


@pytest.fixture(params=[2, 4], ids=["after a window", "in one"])
def state(request: Any, documented: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of a run before a step in which mergers train, or columns are measured."""
    trainer = under("full", documented)
    losses(trainer, request.param)
    return snapshot(trainer), trainer.numbers()


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Of one step: each parameter's gradient, summed over the step's backward passes."""
    found: dict[str, Tensor] = {}

    def note(name: str, grad: Tensor) -> None:
        found[name] = found.get(name, 0) + grad.float()

    for name, parameter in trainer.attachment.named_parameters():
        parameter.requires_grad_(True).register_hook(lambda grad, name=name: note(name, grad))
    losses(trainer, 1)
    return found


def with_scores(trainer: Trainer) -> dict[str, Tensor]:
    """A step's gradients, and the columns' importance after it."""
    found = gradients(trainer)
    scores = {name: t for name, t in snapshot(trainer).items() if name.endswith(":score")}
    return {**found, **scores}


@pytest.mark.parametrize(
    ("plan", "importance"),
    [
        ("full", "magnitude"),
        ("full", "signed"),
        pytest.param("selective", "signed", marks=hooks_in_backward),
        ("low", "magnitude"),
        ("lowest", "signed"),
    ],
)
def test_one_pass_gives_the_gradients_of_two_weighted_apart(
    documented: dict[str, Any], state: Any, plan: str, importance: Any
) -> None:
    def step(**weights: Any) -> dict[str, Tensor]:
        trainer = under(plan, documented, replace(SETTINGS, importance=importance, **weights))
        trainer.restore(*state)
        return with_scores(trainer)

    uniform, x0 = step(), step(weighting="x0")
    together = step(weighting_content="x0")
    differ, rounding = 0, 1e-3 if PLANS[plan].lora_dtype == torch.float32 else 0.05
    for name, expected in x0.items():
        expected = expected if ":content:" in name else uniform[name]
        size = expected.norm()
        assert (together[name] - expected).norm() <= rounding * size, name
        differ += bool((x0[name] - uniform[name]).norm() > 0.1 * size)
    assert differ > len(x0) / 2


def test_the_same_weight_for_both_is_the_weight_of_the_loss(documented: dict[str, Any]) -> None:
    one = under("full", documented, replace(SETTINGS, weighting="debiased"))
    both = under(
        "full",
        documented,
        replace(SETTINGS, weighting_content="debiased", weighting_style="debiased"),
    )
    assert losses(one, 4) == losses(both, 4)
    assert same(snapshot(one), snapshot(both))


@pytest.mark.parametrize("weights", [{"weighting": "x0"}, {"min_snr_gamma": 5.0}])
def test_before_weight_from_the_loss_is_uniform(
    documented: dict[str, Any], weights: dict[str, Any]
) -> None:
    plain = under("full", documented)
    later = under("full", documented, replace(SETTINGS, **weights, weight_from=0.25))
    assert losses(plain, 3) == losses(later, 3)
    assert same(snapshot(plain), snapshot(later))
    assert losses(plain, 1) != losses(later, 1)


def test_two_independent_loras_are_each_weighted_in_their_own_pass(
    documented: dict[str, Any],
) -> None:
    settings = replace(SETTINGS, method="dreambooth")
    plain = under("full", documented, settings)
    styled = under("full", documented, replace(settings, weighting_style="x0"))
    losses(plain, 2)
    losses(styled, 2)
    before, after = (dict(branch_tensors(trainer)) for trainer in (plain, styled))
    assert all(torch.equal(before[n], after[n]) for n in before if ":content:" in n)
    assert not all(torch.equal(before[n], after[n]) for n in before if ":style:" in n)


def branch_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in trainer.attachment.named_parameters():
        yield name, parameter.detach()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"weighting_style": "x0", "min_snr_gamma": 5.0}, "both chosen"),
        ({"weight_from": 0.5}, "nothing weighs it"),
        ({"weighting_content": "uniform", "weight_from": 0.5}, "nothing weighs it"),
        ({"weighting": "x0", "weight_from": 1.5}, "at most 1"),
        ({"weighting_content": "loud"}, "Choose one of uniform"),
    ],
)
def test_weights_that_contradict_each_other_are_refused(
    chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Settings("cat", "ink", **chosen)
