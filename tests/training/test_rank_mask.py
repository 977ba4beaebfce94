"""Content has fewer ranks where it is noisy, and style all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from tests.training.test_loss_weights import gradients
from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS
from unziplora.training.rank_mask import active_rank, content_rank

MASKED = replace(SETTINGS, rank=8, rank_mask=1.0, rank_mask_least=0.25, steps=30)


@pytest.mark.parametrize(
    ("t", "exponent", "expected"),
    [(0, 1.0, 64), (999, 1.0, 32), (500, 1.0, 48), (500, 2.0, 40), (250, 0.5, 59)],
)
def test_the_rank_is_t_loras(t: int, exponent: float, expected: int) -> None:
    assert active_rank(64, 32, exponent, t, 1000) == expected


def test_without_it_or_with_a_share_of_one_all_rows_take_part() -> None:
    assert content_rank(SETTINGS.resolve(), 999, 1000) is None
    whole = replace(MASKED, rank_mask_least=1.0).resolve()
    assert {content_rank(whole, t, 1000) for t in (0, 500, 999)} == {8}
    assert content_rank(replace(MASKED, rank_mask_least=0.0).resolve(), 999, 1000) == 1


@pytest.mark.parametrize("plan", ["full", "low"])
def test_only_the_rows_of_a_timestep_learn_from_it(documented: dict[str, Any], plan: str) -> None:
    trainer = under(plan, documented, MASKED)
    losses(trainer, 2)  # B is no longer zero
    drawn: list[int] = []
    denoise = trainer.host.denoise

    def noting(latents: Tensor, t: Tensor, *rest: Any) -> Tensor:
        drawn.append(int(t))
        result: Tensor = denoise(latents, t, *rest)
        return result

    trainer.host.denoise = noting
    ranks = set()
    for _ in range(3):
        found = gradients(trainer)
        rank = content_rank(trainer.settings, drawn[-1], 1000)
        assert rank is not None
        ranks.add(rank)
        for name, grad in found.items():
            if name.endswith(":content:down"):
                assert not grad[rank:].any()
                assert grad[:rank].any()
            if name.endswith(":style:down"):
                assert grad.any(dim=1).all()
    assert len(ranks) > 1
