"""Weights by timestep against their sources, and stratified timesteps."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.training.settings import Settings
from unziplora.training.timesteps import BLOCK, stratified
from unziplora.training.weightings import WEIGHTINGS, min_snr, schedule_weights

# % of the weight in each fifth of SDXL's schedule, computed apart from this code
SHARES = {
    "uniform": (20, 20, 20, 20, 20),
    "debiased": (2.2, 5.6, 10.9, 22.8, 58.5),
    "x0": (0.1, 0.7, 2.8, 12.3, 84.0),
    "style-friendly": (0.0, 0.5, 3.4, 18.8, 77.3),
}


@pytest.fixture
def abar() -> Tensor:
    """SDXL's (scaled linear, 0.00085 to 0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@pytest.mark.parametrize("name", list(WEIGHTINGS))
def test_each_weighs_the_schedule_as_its_source_says(name: str, abar: Tensor) -> None:
    weights = schedule_weights(name, abar, "epsilon")
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    shares = weights.view(5, 200).sum(1) / weights.sum() * 100
    assert shares.tolist() == pytest.approx(SHARES[name], abs=0.15)


@pytest.mark.parametrize("name", ["debiased", "x0"])
def test_a_velocitys_weight_is_the_same_weight_of_the_noises_error(name: str, abar: Tensor) -> None:
    noise, velocity = (schedule_weights(name, abar, kind) for kind in ("epsilon", "v_prediction"))
    # |v - v'|^2 = (SNR + 1) / SNR |eps - eps'|^2 = |eps - eps'|^2 / abar
    ratio = velocity / abar / noise
    assert torch.allclose(ratio, ratio[0].expand(1000), rtol=1e-3)


@pytest.mark.parametrize("name", list(WEIGHTINGS))
def test_zero_terminal_snr_is_weighed_for_a_velocity_and_refused_for_noise(
    name: str, abar: Tensor
) -> None:
    abar[-1] = 0
    assert schedule_weights(name, abar, "v_prediction").isfinite().all()
    if name in ("debiased", "x0"):
        with pytest.raises(InvalidInput, match="zero terminal SNR"):
            schedule_weights(name, abar, "epsilon")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_the_papers(abar: Tensor, prediction: Any) -> None:
    snr = abar / (1 - abar)
    below = snr if prediction == "epsilon" else snr + 1
    assert torch.allclose(min_snr(abar, prediction, 5.0), snr.clamp(max=5) / below)
    abar[-1] = 0
    assert min_snr(abar, prediction, 5.0).isfinite().all()


def test_every_weighting_can_be_chosen_and_not_beside_min_snr() -> None:
    assert set(get_args(get_type_hints(Settings)["weighting"])) == set(WEIGHTINGS)
    with pytest.raises(InvalidInput, match="both chosen"):
        Settings("cat", "ink", weighting="x0", min_snr_gamma=5.0)


@pytest.mark.parametrize("seed", [0, 3])
def test_each_block_of_draws_covers_the_schedule_once(seed: int) -> None:
    for block in range(5):
        drawn = [stratified(block * BLOCK + n, 1000, seed) for n in range(BLOCK)]
        assert sorted(t * BLOCK // 1000 for t in drawn) == list(range(BLOCK))
        assert drawn != sorted(drawn)


def test_a_seed_draws_the_same_and_another_draws_others() -> None:
    one, same, other = ([stratified(n, 1000, seed) for n in range(40)] for seed in (1, 1, 2))
    assert one == same
    assert one != other
