"""Noise and targets against diffusers' scheduler and the formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from unziplora.training.objective import Objective

T = torch.tensor([0, 400, 998])


def scheduler(**more: Any) -> Any:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **more)


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(3, 4, 8, 8, generator=generator),
        torch.randn(3, 4, 8, 8, generator=generator),
    )


@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_and_velocity_are_those_of_diffusers(zero_snr: bool) -> None:
    theirs = scheduler(rescale_betas_zero_snr=zero_snr)
    latents, noise = drawn()
    ours = Objective(theirs.alphas_cumprod, "v_prediction")
    added = ours.add_noise(latents, noise, T)
    assert torch.allclose(added, theirs.add_noise(latents, noise, T), atol=1e-5)
    velocity = ours.target(latents, noise, T)
    assert torch.allclose(velocity, theirs.get_velocity(latents, noise, T), atol=1e-5)
    assert torch.equal(Objective(theirs.alphas_cumprod, "epsilon").target(latents, noise, T), noise)


def test_the_last_step_of_a_zero_snr_schedule_is_pure_noise() -> None:
    alphas = scheduler(rescale_betas_zero_snr=True).alphas_cumprod
    latents, noise = drawn()
    last = torch.full((3,), 999)
    objective = Objective(alphas, "v_prediction")
    assert torch.allclose(objective.add_noise(latents, noise, last), noise)
    assert torch.allclose(objective.target(latents, noise, last), -latents)
    assert objective.loss(noise, latents, noise, last).isfinite()


def test_loss_is_the_mean_squared_error() -> None:
    latents, noise = drawn()
    objective = Objective(scheduler().alphas_cumprod, "epsilon")
    loss = objective.loss(torch.zeros_like(noise, dtype=torch.bfloat16), latents, noise, T)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(noise.square().mean().item())
