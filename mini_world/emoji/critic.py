"""An adversary for the VAE's decoder: it tells crops of the world from what the decoder draws.

Errors point by point are smallest for a blur where the latents do not say where exactly a stroke
is; the critic wants a stroke all the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT = 0.03  # of the critic's word in the decoder's error
WARM_STEPS = 100  # the critic alone learns
RATE = 2e-4


class Critic(nn.Module):
    """Images (n, 3, h, w) in -1..1 to scores (n, 1, h / 8, w / 8), one a patch of 22 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, after, 4, 2, 1)),
                       nn.LeakyReLU(0.2)]  # fmt: skip
        self.net = nn.Sequential(*layers, nn.Conv2d(128, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.net(images)
        return scores


class Adversary:
    """A critic with its optimizer."""

    def __init__(self, device: torch.device) -> None:
        self.critic = Critic().to(device)
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), RATE, betas=(0.5, 0.9))
        self.step = 0

    def error(self, decoded: Tensor) -> Tensor:
        """What the decoder is to lower: 0 until the critic has learned something."""
        if self.step < WARM_STEPS:
            return decoded.new_zeros(())
        return -WEIGHT * self.critic(decoded).mean()

    def learn(self, decoded: Tensor, truth: Tensor) -> float:
        """One update with the hinge loss (arXiv 1705.02894); made is not differentiated."""
        self.optimizer.zero_grad(set_to_none=True)  # of what the decoder's error left
        fooled, right = self.critic(decoded.detach()), self.critic(truth)
        loss = F.relu(1 + fooled).mean() + F.relu(1 - right).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict(),
                "step": self.step}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
