"""LoRA+: B learns at a multiple of A's rate, under every optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS, same, snapshot
from unziplora.training.memory_plans import PLANS, Plan

STARTED = replace(SETTINGS, method="m1", init="random", weight_decay=1e-2)
IN_FP32 = [*(PLANS[name] for name in ("full", "selective")), Plan("small", in_backward=True)]


@pytest.mark.parametrize("plan", IN_FP32, ids=lambda plan: plan.name)
def test_b_moves_so_many_times_as_far_and_a_as_ever(documented: dict[str, Any], plan: Plan) -> None:
    def moves(ratio: float) -> dict[str, Tensor]:
        trainer = under(plan, documented, replace(STARTED, lora_plus=ratio))
        before = snapshot(trainer)
        losses(trainer, 1)
        return {
            name: parameter.detach() - before[name]
            for name, parameter in trainer.attachment.named_parameters()
        }

    plain, plus = moves(1), moves(16)
    for name, move in plain.items():
        ratio = 16 if name.endswith(":up") else 1
        assert torch.allclose(plus[name], ratio * move, rtol=1e-3, atol=1e-6), name
    assert any(name.endswith(":up") and move.any() for name, move in plain.items())


@pytest.mark.parametrize("plan", list(PLANS))
def test_a_ratio_of_one_is_no_ratio(documented: dict[str, Any], plan: str) -> None:
    plain = under(plan, documented, STARTED)
    one = under(plan, documented, replace(STARTED, lora_plus=1))
    assert losses(plain, 3) == losses(one, 3)
    assert same(snapshot(plain), snapshot(one))
