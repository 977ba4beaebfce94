"""One training step: noise, prediction, loss, gradients, columns; training/optimizer.py applies
them.

Everything that decides the next step is in `Trainer.tensors()` and `Trainer.numbers()`, so that a
run can stop after any step and be resumed exactly (training/run_folder.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import TrainingFailed
from unziplora.host import Host
from unziplora.method.columns import ColumnSchedule, orthogonality, recalibrate
from unziplora.method.forward_mode import Pass
from unziplora.method.functional import signed_importance
from unziplora.method.gradient_gate import GradientGate
from unziplora.method.methods import METHODS
from unziplora.method.prompts import BRANCHES, PROMPTS, BranchName
from unziplora.training.gradient_checks import require_gradients
from unziplora.training.inputs import TrainingInputs
from unziplora.training.leak import LeakPenalty
from unziplora.training.loss_weights import LossWeights
from unziplora.training.memory_plans import PLANS, Plan
from unziplora.training.objective import Objective
from unziplora.training.optimizer import LoraOptimizer, norms_of
from unziplora.training.rank_mask import content_rank
from unziplora.training.settings import ResolvedSettings
from unziplora.training.step_mean import StepMean
from unziplora.training.subject_mask import SubjectMask
from unziplora.training.timesteps import stratified
from unziplora.unet.attach import Attachment
from unziplora.unet.weight_cast import in_fp16


@dataclass(frozen=True)
class Losses:
    """diffusion: the objective's loss. orthogonality: eq. 5, or None without columns. leak: of both
    branches, before its weight, or None in a step without it."""

    diffusion: float
    orthogonality: float | None
    leak: float | None = None


class Trainer:
    """Trains the pairs of an attachment on one image; `step` steps are done.

    plan: how A and B are kept and updated; what it does to the UNet is `Plan.on`. columns_chosen:
    the branches are a finished pair's, whose columns stay as they are.
    """

    def __init__(
        self,
        host: Host,
        settings: ResolvedSettings,
        attachment: Attachment,
        encoded: TrainingInputs,
        plan: Plan = PLANS["full"],
        *,
        columns_chosen: bool = False,
    ) -> None:
        attachment.cast(plan.lora_dtype)
        self.plan = plan
        self.settings = settings
        self.attachment = attachment
        self.method = METHODS[settings.method]
        self.step = 0
        self._open: dict[BranchName, float] | None = None  # shares of open columns
        self.host = host
        self.encoded = encoded
        abar, predicted = host.alphas_cumprod, settings.predicted(host.prediction_type)
        self._objective = Objective(abar.to(host.device), predicted)
        self._leak = LeakPenalty.of(settings)
        self._mask = SubjectMask(encoded.mask, settings.mask_content, settings.mask_rest)
        self._loss_weights = LossWeights.of(settings, abar, predicted)
        prompts = (*PROMPTS, *settings.leak_prompts)
        if len(encoded.context) != len(prompts):
            raise ValueError(f"{len(encoded.context)} embeddings of {len(prompts)} prompts")
        self._added = {
            prompt: host.added_conditioning(encoded.pooled[i : i + 1], encoded.sizes)
            for i, prompt in enumerate(prompts)
        }
        self._contexts = {prompt: encoded.context[i : i + 1] for i, prompt in enumerate(prompts)}
        attachment.mode.set_contexts(self._contexts)
        attachment.mode.fold_mergers = settings.fold == "h*m"
        # an interval of 0 measures and opens nothing
        every = 0 if columns_chosen else settings.recalibrate_every
        self._schedule = ColumnSchedule(every, settings.window)
        self.columns_chosen = columns_chosen
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._mean = StepMean(attachment, settings.average_last, settings.steps)
        self._optimizer = LoraOptimizer(
            attachment, settings, plan, host.device, fp16=in_fp16(host.unet)
        )

    def advance(self) -> Losses:
        """One step. Raises TrainingFailed where loss or gradients are not finite, or where a
        layer that should learn gets no gradient; the branches are then as before the step, unless
        `consistent` says that an update in the backward pass had begun."""
        earlier = self._generator.get_state()
        try:
            losses = self._gradients()
        except BaseException:
            self._generator.set_state(earlier)
            self._optimizer.forget_gradients()
            raise
        self._optimizer.consistent = False
        self._apply()
        self.step += 1
        self._mean.add(self.step)
        self._optimizer.consistent = True
        return losses

    @property
    def consistent(self) -> bool:
        """False while an update is half done: then the weights are of no step."""
        return self._optimizer.consistent

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the image as it was trained on."""
        return self.encoded.sizes.target

    @property
    def averaged_steps(self) -> int:
        """Of how many last steps `averaged` has the mean so far."""
        return self._mean.count

    def averaged(self) -> AbstractContextManager[None]:
        """The branches hold what goes into the files: the mean of the last steps, if it is wanted.
        Nothing may be trained or saved as a state meanwhile."""
        return self._mean.in_place()

    def open_columns(self) -> dict[BranchName, float]:
        """Share of each branch's columns that are open, 0 to 1; counted when masks have changed."""
        if self._open is None:
            self._open = {}
            for name in BRANCHES:
                masks = [b.mask for _, branch, b in self.attachment.branches() if branch == name]
                self._open[name] = torch.cat(masks).float().mean().item() if masks else 0.0
        return self._open

    def all_finite(self) -> bool:
        """Whether every trained number is finite: only then is a state worth keeping."""
        parameters = [p.detach() for _, p in self.attachment.named_parameters()]
        return all(map(math.isfinite, norms_of(parameters)))

    def tensors(self) -> dict[str, Tensor]:
        """Branches, masks, scores, moments, generator and inputs, by name; not copies."""
        tensors = {name: p.detach() for name, p in self.attachment.named_parameters()}
        for layer, which, branch in self.attachment.branches():
            tensors[f"{layer}:{which}:mask"] = branch.mask
            tensors[f"{layer}:{which}:score"] = branch.score
        tensors.update(self._optimizer.tensors())
        tensors.update(self._mean.tensors())
        tensors["generator"] = self._generator.get_state()
        return {**tensors, **self.encoded.tensors()}

    def numbers(self) -> dict[str, Any]:
        """What is not a tensor."""
        return {
            "step": self.step,
            "sizes": asdict(self.encoded.sizes),
            **self._optimizer.numbers(),
            **self._mean.numbers(),
        }

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Takes back what `tensors` and `numbers` gave. Raises KeyError, TypeError, RuntimeError
        or ValueError where they are not of this trainer's kind."""
        step, updates = numbers["step"], numbers["updates"]
        if type(step) is not int or type(updates) is not int:
            raise TypeError("steps are counted in whole numbers")
        if not 0 <= updates <= step <= self.settings.steps:
            raise ValueError(f"{updates} updates in {step} steps")
        for pair in self.attachment.pairs.values():
            for branch in pair.branches.values():
                if pair.reads_text and branch.down.shape[1] != self.encoded.context.shape[2]:
                    raise ValueError("the embeddings are of another width")
        with torch.no_grad():
            for name, parameter in self.attachment.named_parameters():
                _copy(parameter, tensors[name])
            for layer, which, branch in self.attachment.branches():
                _copy(branch.mask, tensors[f"{layer}:{which}:mask"])
                _copy(branch.score, tensors[f"{layer}:{which}:score"])
        self._optimizer.restore(tensors, numbers)
        self._mean.restore(tensors, numbers)
        self._generator.set_state(tensors["generator"])
        self._open = None
        self.step = step

    def _gradients(self) -> Losses:
        """Fills every gradient of the step, unscaled and checked but not clipped."""
        measuring = self.method.columns and self._schedule.measures(self.step)
        self._begin(measuring)
        leak = None
        if self._leak.due(self.step) and not measuring:
            with self._optimizer.gathering():  # one update for all of a step's passes
                leak = sum(self._backward_leak(*passes) for passes in self._leak.passes())
        first = self.step * len(self.method.passes)
        diffusion = sum(
            self._backward(one_pass, number)
            for number, one_pass in enumerate(self.method.passes, first)
        )
        penalty = self._backward_penalty() if self.method.columns else None
        if not math.isfinite(diffusion):
            raise TrainingFailed(
                f"The loss became {diffusion} at step {self.step + 1}. "
                f"Start again with a learning rate below {self.settings.lr:g}; if it was "
                "small already, use an fp32 VAE and a base model in bf16 or fp32."
            )
        self._optimizer.unscale()
        self._restrict_mergers()
        self._check_gradients(measuring)
        return Losses(diffusion / len(self.method.passes), penalty, leak)

    def _begin(self, measuring: bool) -> None:
        """What trains in this step, and whether columns are measured."""
        mode, signed = self.attachment.mode, self.settings.importance == "signed"
        mode.window = measuring
        mode.measuring = measuring and not signed
        for _, _, branch in self.attachment.branches():
            branch.merger.requires_grad_(self.method.columns and not measuring)
            if measuring:
                branch.step_score.zero_()
        self._optimizer.begin(self.settings.lr_factor(self.step), signed=measuring and signed)

    def _backward_penalty(self) -> float:
        """Backward pass of eq. 5, weighted with lambda; eq. 5."""
        overlap = orthogonality(
            self.attachment.pairs.values(), self.settings.orthogonality_reduction
        )
        if overlap.requires_grad and self.settings.orthogonality:
            self._optimizer.backward(self.settings.orthogonality * overlap)
        return overlap.item()

    def _backward(self, one_pass: Pass, number: int) -> float:
        """Forward and backward of one pass, the run's `number`-th (from 0); the loss."""
        side, noise, timestep = self._draw(number)
        latents, t = self.encoded.latents[side : side + 1], timestep.to(noise.device)
        weight, gates = self._loss_weights.at(self.step, int(timestep), one_pass.branches)
        gates = self._mask.on(gates, one_pass.branches, side)
        noisy = self._objective.add_noise(latents, noise, t)
        prediction = self._predict(one_pass, noisy, timestep, gates)
        loss = weight * self._objective.loss(prediction, latents, noise, t)
        self._optimizer.backward(loss)
        return float(loss.detach())

    def _backward_leak(self, base: Pass, alone: Pass) -> float:
        """Forward and backward of what one branch does where it should do nothing; that."""
        side, noise, timestep = self._draw()
        latents = self.encoded.latents[side : side + 1]
        noisy = self._objective.add_noise(latents, noise, timestep.to(noise.device))
        unchanged = self._predict(base, noisy, timestep).detach().float()
        leak = (self._predict(alone, noisy, timestep).float() - unchanged).square().mean()
        self._optimizer.backward(self._leak.weight * leak)
        return float(leak.detach())

    def _predict(
        self,
        one_pass: Pass,
        noisy: Tensor,
        timestep: Tensor,
        gates: Mapping[BranchName, GradientGate] | None = None,
    ) -> Tensor:
        """What the UNet makes of latents (1, 4, h, w) at a timestep (1,) that is on the CPU."""
        rank = content_rank(self.settings, int(timestep), self._objective.timesteps)
        rows: dict[BranchName, int] = {} if rank is None else {"content": rank}
        self.attachment.mode.use_pass(one_pass, gates, rows)
        base = one_pass.base
        t = timestep.to(noisy.device)
        return self.host.denoise(noisy, t, self._contexts[base], self._added[base])

    def _draw(self, number: int | None = None) -> tuple[int, Tensor, Tensor]:
        """Which of the latents, noise (1, 4, h, w), and timestep (1,) on the CPU: the same for any
        device. number: the pass's, where timesteps may be stratified."""
        latents = self.encoded.latents
        side = int(torch.randint(len(latents), (1,), generator=self._generator))
        noise = torch.randn((1, *latents.shape[1:]), generator=self._generator)
        t = torch.randint(self._objective.timesteps, (1,), generator=self._generator)
        if self.settings.timesteps == "stratified" and number is not None:
            t[0] = stratified(number, self._objective.timesteps, self.settings.seed)
        return side, noise.to(latents), t

    def _apply(self) -> None:
        """Importance, the update, and what the columns' schedule asks for."""
        if self.method.columns and self._schedule.measures(self.step):
            self._measure()
        # independent LoRAs are clipped apart
        together = [self._trained_by(one_pass) for one_pass in self.method.passes]
        self._optimizer.apply(together, self.settings.lr_factor(self.step))
        if self.method.columns:
            with torch.no_grad():
                for _, _, branch in self.attachment.branches():
                    branch.merger.clamp_(0, 1)
            if self._schedule.selects_after(self.step):
                self._open_columns()

    def _measure(self) -> None:
        """Adds this step's importance to the window's score."""
        opening = self._schedule.opens_window(self.step)
        for _, _, branch in self.attachment.branches():
            if opening:
                branch.score.zero_()
            if self._optimizer.overflow:
                continue
            if self.settings.importance == "signed" and branch.up.grad is not None:
                branch.score += signed_importance(branch.up, branch.up.grad)
            else:  # added up in the backward pass
                branch.score += branch.step_score / self._optimizer.loss_scale

    def _open_columns(self) -> None:
        self._open = None
        scores = [branch.score for _, _, branch in self.attachment.branches() if branch.limited]
        if scores and not any(norms_of(scores)):
            raise TrainingFailed(
                f"No column's importance could be measured up to step {self.step + 1}, because "
                "every gradient was zero or too large for fp16. Start again with a longer "
                "measuring window, or a base model in bf16 or fp32."
            )
        first = self.step < self._schedule.every
        for pair in self.attachment.pairs.values():
            recalibrate(pair, self.settings.columns, first=first, reselect=self.settings.reselect)
        self._optimizer.forget_momentum()

    def _restrict_mergers(self) -> None:
        """The authors' way, as a setting: mergers train only where both masks are open."""
        if self.settings.merger_columns != "overlap":
            return
        for pair in self.attachment.pairs.values():
            both = torch.stack([branch.mask for branch in pair.branches.values()]).all(dim=0)
            for branch in pair.branches.values():
                if branch.merger.grad is not None:
                    branch.merger.grad *= both

    def _trained_by(self, one_pass: Pass) -> list[nn.Parameter]:
        return [
            parameter
            for _, name, branch in self.attachment.branches()
            if name in one_pass.branches
            for parameter in (branch.down, branch.up, branch.merger)
        ]

    def _check_gradients(self, measuring: bool) -> None:
        """Stops a run that would silently learn nothing: lora_up must have gradients before the
        first update, lora_down before the second (B starts at zero), and mergers at the first step
        after a window; and all must be finite."""
        self._optimizer.check(self.step)
        if self._optimizer.overflow:
            return
        if self._optimizer.done == 0:
            require_gradients(self.attachment, self._optimizer.norm, "up")
        if self._optimizer.done == 1:
            require_gradients(self.attachment, self._optimizer.norm, "down")
        ended = self.method.columns and not measuring and self._schedule.measures(self.step - 1)
        if ended and self.settings.merger_columns == "open":  # an overlap may be empty
            require_gradients(self.attachment, self._optimizer.norm, "merger")


def _copy(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise ValueError(f"expected {tuple(target.shape)}, found {tuple(source.shape)}")
    target.copy_(source)
