"""What the UNet is trained to predict: noise or velocity, on the model's own noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unziplora.host import PredictionType


@dataclass(frozen=True)
class Objective:
    """alphas_cumprod: (T,), the model's own, fp32 (zero at the end for zero-terminal-SNR)."""

    alphas_cumprod: Tensor
    prediction_type: PredictionType

    @property
    def timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps; (n, c, h, w) at timesteps t (n,)."""
        alpha, sigma = self._alpha_sigma(t)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """eps, or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022)."""
        if self.prediction_type == "epsilon":
            return noise
        alpha, sigma = self._alpha_sigma(t)
        return alpha * noise - sigma * latents

    def loss(self, prediction: Tensor, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Mean squared error in fp32. What weighs it is in training/loss_weights.py."""
        return (prediction.float() - self.target(latents, noise, t)).square().mean()

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return abar.sqrt(), (1 - abar).sqrt()
