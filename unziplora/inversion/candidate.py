"""Two embeddings of one seed: textual inversion (Gal et al. 2022) of both at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import TrainingFailed
from unziplora.host import Host, LearnableEncoders, SizeIds
from unziplora.inversion.settings import BEGIN, PROMPT, WORDS
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.loss_scale import loss_scaler
from unziplora.training.objective import Objective
from unziplora.unet.weight_cast import in_fp16

Vectors = dict[BranchName, tuple[Tensor, Tensor]]


class Candidate:
    """`step` steps are learned. host: borrowed meanwhile. latents: (1, 4, h, w) of the image."""

    def __init__(
        self,
        host: Host,
        encoders: LearnableEncoders,
        objective: Objective,
        latents: Tensor,
        sizes: SizeIds,
        *,
        seed: int,
        lr: float,
    ) -> None:
        self.seed, self.step = seed, 0
        self._host, self._encoders, self._objective = host, encoders, objective
        self._latents, self._sizes = latents, sizes
        self._generator = torch.Generator().manual_seed(seed)
        self._parameters = {
            role: tuple(nn.Parameter(vector) for vector in encoders.vectors_of(BEGIN[role]))
            for role in BRANCHES
        }
        self._flat = [p for pair in self._parameters.values() for p in pair]
        self._optimizer = torch.optim.AdamW(self._flat, lr=lr)
        self._scaler = loss_scaler(host.device, enabled=in_fp16(host.unet))
        self._times = timestep_weights(objective.timesteps)

    def advance(self) -> float:
        """One step; its loss. Raises TrainingFailed where that is no number."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self._generator)
        if not math.isfinite(loss.item()):
            raise TrainingFailed(
                f"The inversion's loss became {loss.item()} at step {self.step + 1}. "
                "Start again with a lower --lr, or a base model in bf16 or fp32."
            )
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        return loss.item()

    def loss(self, generator: torch.Generator) -> Tensor:
        """Of noise and a timestep drawn here: what the UNet predicts with both embeddings."""
        noise = torch.randn(self._latents.shape, generator=generator).to(self._latents)
        t = torch.multinomial(self._times, 1, generator=generator).to(self._latents.device)
        noisy = self._objective.add_noise(self._latents, noise, t)
        prompt = PROMPT.format(**WORDS)
        context, pooled = self._encoders.encode(prompt, self.by_word(self._parameters))
        added = self._host.added_conditioning(pooled, self._sizes)
        prediction = self._host.denoise(noisy, t, context, added)
        return self._objective.loss(prediction, self._latents, noise, t)

    def tensors(self) -> dict[str, Tensor]:
        """All that decides the next step, but for the loss scale: for `restore`."""
        found = {"step": torch.tensor(self.step), "random": self._generator.get_state()}
        for number, parameter in enumerate(self._flat):
            found[f"{number}.vector"] = parameter.detach().cpu()
            for name, value in self._optimizer.state.get(parameter, {}).items():
                found[f"{number}.{name}"] = value.detach().cpu()
        return found

    @property
    def scaling(self) -> dict[str, Any]:
        """The state of the loss scale."""
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def restore(self, tensors: Mapping[str, Tensor], scaling: Mapping[str, Any]) -> None:
        """Goes on from where `tensors` and `scaling` were taken. Raises KeyError, RuntimeError."""
        self.step = int(tensors["step"])
        self._generator.set_state(tensors["random"])
        state = self._optimizer.state_dict()
        for number, parameter in enumerate(self._flat):
            with torch.no_grad():
                parameter.copy_(tensors[f"{number}.vector"])
            if self.step:
                state["state"][number] = {
                    name: tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")
                }
        self._optimizer.load_state_dict(state)
        if scaling:
            self._scaler.load_state_dict(dict(scaling))

    @property
    def vectors(self) -> Vectors:
        """As they are now, copies."""
        return {
            role: (first.detach().clone(), second.detach().clone())
            for role, (first, second) in self._parameters.items()
        }

    @torch.no_grad()
    def features(self, role: BranchName, count: int, draw: Callable[[str, int], Tensor]) -> Tensor:
        """(count, features) of images of one embedding alone. draw: the features of a prompt's
        image, by its seed."""
        prompt = WORDS[role]
        with self._encoders.drawn_with([prompt], self.by_word(self.vectors)):
            return torch.stack([draw(prompt, number) for number in range(count)])

    def by_word(self, vectors: Any) -> dict[str, tuple[Tensor, Tensor]]:
        return {WORDS[role]: vectors[role] for role in BRANCHES}


def timestep_weights(timesteps: int) -> Tensor:
    """(T,): how often each is drawn; noisy ones more, 1 - cos(pi t / T) / 2 (Vinker et al. 2023,
    their textual_inversion_decomposed.py)."""
    t = torch.arange(timesteps, dtype=torch.float64) / timesteps
    return 1 - 0.5 * torch.cos(math.pi * t)
