"""One training step: noise, prediction, loss, gradients, columns, update.

Everything that decides the next step is in `Trainer.tensors()` and `Trainer.numbers()`, so that a
run can stop after any step and go on exactly (training/state.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import TrainingFailed
from unziplora.method.columns import (
    ColumnSchedule,
    orthogonality,
    recalibrate,
    signed_importance,
)
from unziplora.method.prompts import BRANCHES, PROMPTS, BranchName, Pass
from unziplora.training.host import Host, SizeIds
from unziplora.training.objective import Objective
from unziplora.training.settings import Settings
from unziplora.unet.attach import Attachment


@dataclass(frozen=True)
class Encoded:
    """What training needs of picture and prompts; constant during a run.

    latents: (1 or 2, 4, h, w), the picture and, where flips are on, its mirror image.
    context: (3, tokens, width) and pooled: (3, width), in the order of PROMPTS.
    """

    latents: Tensor
    context: Tensor
    pooled: Tensor
    sizes: SizeIds

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: torch.device
    ) -> Encoded:
        """What a saved state holds of it. Raises KeyError or TypeError where it does not."""
        sizes = SizeIds(**{name: tuple(value) for name, value in numbers["sizes"].items()})
        # Copied: a file's tensors lie unaligned in memory, where products round differently.
        latents, context, pooled = (
            tensors[name].to(device, copy=True) for name in ("latents", "context", "pooled")
        )
        return cls(latents, context, pooled, sizes)


@dataclass(frozen=True)
class Losses:
    """diffusion: the objective's loss. orthogonality: eq. 5, or None without columns."""

    diffusion: float
    orthogonality: float | None


class Trainer:
    """Trains the pairs of an attachment on one picture; `step` steps are done."""

    def __init__(
        self, host: Host, settings: Settings, attachment: Attachment, encoded: Encoded
    ) -> None:
        self.settings = settings
        self.attachment = attachment
        self.method = settings.chosen_method
        self.step = 0
        self.sound = True  # False while an update is half done
        self._updates = 0  # steps that the loss scaler did not skip
        self._overflow = False
        self._host = host
        self._encoded = encoded
        self._objective = Objective(
            host.alphas_cumprod.to(host.device), host.prediction_type, settings.min_snr_gamma
        )
        self._added = {
            prompt: host.added_conditioning(encoded.pooled[i : i + 1], encoded.sizes)
            for i, prompt in enumerate(PROMPTS)
        }
        self._contexts = {prompt: encoded.context[i : i + 1] for i, prompt in enumerate(PROMPTS)}
        attachment.switch.read(self._contexts)
        attachment.switch.fold_mergers = settings.fold == "h*m"
        self._schedule = ColumnSchedule(settings.stage_steps, settings.chosen_window)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._optimizer = self._make_optimizer()
        dtype = next(host.unet.parameters()).dtype
        self._scaler = _loss_scaler(host.device, enabled=dtype == torch.float16)

    def advance(self) -> Losses:
        """One step. Raises TrainingFailed where loss or gradients are not finite, or where a
        layer that should learn gets no gradient; the branches are then as before the step."""
        earlier = self._generator.get_state()
        try:
            losses = self._gradients()
        except BaseException:
            self._generator.set_state(earlier)
            self._forget_gradients()
            raise
        self.sound = False
        self._update()
        self.step += 1
        self.sound = True
        return losses

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the picture as it was trained on."""
        return self._encoded.sizes.target

    def open_columns(self) -> dict[BranchName, float]:
        """Share of each branch's columns that are open, 0 to 1."""
        shares: dict[BranchName, float] = {}
        for name in BRANCHES:
            masks = [b.mask for _, branch, b in self.attachment.branches() if branch == name]
            shares[name] = torch.cat(masks).float().mean().item() if masks else 0.0
        return shares

    def finite(self) -> bool:
        """Whether every trained number is finite: only then is a state worth keeping."""
        parameters = [p.detach() for _, p in self.attachment.named_parameters()]
        norms = torch._foreach_norm(parameters)  # one kernel for thousands of tensors
        return bool(torch.stack([norm.cpu() for norm in norms]).isfinite().all())

    def tensors(self) -> dict[str, Tensor]:
        """Branches, masks, scores, moments, generator and inputs, by name; not copies."""
        tensors = {name: p.detach() for name, p in self.attachment.named_parameters()}
        for layer, which, branch in self.attachment.branches():
            tensors[f"{layer}:{which}:mask"] = branch.mask
            tensors[f"{layer}:{which}:score"] = branch.score
        for name, parameter in self.attachment.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{name}:{key}"] = value
        tensors["generator"] = self._generator.get_state()
        tensors["latents"] = self._encoded.latents
        tensors["context"] = self._encoded.context
        tensors["pooled"] = self._encoded.pooled
        return tensors

    def numbers(self) -> dict[str, Any]:
        """What is not a tensor."""
        return {
            "step": self.step,
            "sizes": asdict(self._encoded.sizes),
            "updates": self._updates,
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Takes back what `tensors` and `numbers` gave. Raises KeyError or ValueError where they
        are not of this trainer's kind."""
        with torch.no_grad():
            for name, parameter in self.attachment.named_parameters():
                _copy(parameter, tensors[name])
            for layer, which, branch in self.attachment.branches():
                _copy(branch.mask, tensors[f"{layer}:{which}:mask"])
                _copy(branch.score, tensors[f"{layer}:{which}:score"])
        for name, parameter in self.attachment.named_parameters():
            moments = {
                key: tensors[f"{name}:{key}"].clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}:{key}" in tensors
            }
            if moments:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device)
                    for key, value in moments.items()
                }
        self._generator.set_state(tensors["generator"])
        self._scaler.load_state_dict(numbers["scaler"])
        self.step = int(numbers["step"])
        self._updates = int(numbers["updates"])

    def _gradients(self) -> Losses:
        """Fills every gradient of the step, unscaled and checked but not clipped."""
        measuring = self.method.columns and self._schedule.measures(self.step)
        switch = self.attachment.switch
        switch.window = measuring
        switch.measuring = measuring and self.settings.importance == "magnitude"
        for _, _, branch in self.attachment.branches():
            branch.merger.requires_grad_(self.method.columns and not measuring)
            branch.step_score.zero_()
        self._forget_gradients()

        diffusion = sum(self._backward(one_pass) for one_pass in self.method.passes)
        penalty = None
        if self.method.columns:
            overlap = orthogonality(
                self.attachment.pairs.values(), self.settings.orthogonality_reduction
            )
            if overlap.requires_grad and self.settings.orthogonality:
                self._scaler.scale(self.settings.orthogonality * overlap).backward()
            penalty = overlap.item()
        if not math.isfinite(diffusion):
            raise TrainingFailed(
                f"The loss became {diffusion} at step {self.step + 1}. "
                f"Start again with a learning rate below {self.settings.chosen_lr:g}; if it was "
                "small already, use an fp32 VAE and a base model in bf16 or fp32."
            )
        self._scaler.unscale_(self._optimizer)
        self._check_gradients(measuring)
        return Losses(diffusion / len(self.method.passes), penalty)

    def _backward(self, one_pass: Pass) -> float:
        """Forward and backward of one pass; the loss."""
        latents, noise, t = self._draw()
        noisy = self._objective.add_noise(latents, noise, t)
        self.attachment.switch.separate(one_pass)
        prediction = self._host.denoise(
            noisy, t, self._contexts[one_pass.base], self._added[one_pass.base]
        )
        loss = self._objective.loss(prediction, latents, noise, t)
        self._scaler.scale(loss).backward()
        return float(loss.detach())

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (1, 4, h, w), noise of their shape and timestep (1,), the same on any device."""
        latents = self._encoded.latents
        side = int(torch.randint(len(latents), (1,), generator=self._generator))
        latents = latents[side : side + 1]
        noise = torch.randn(latents.shape, generator=self._generator)
        t = torch.randint(self._objective.timesteps, (1,), generator=self._generator)
        return latents, noise.to(latents), t.to(latents.device)

    def _update(self) -> None:
        """Importance, clipping, the optimizer's step, and what the columns' schedule asks for."""
        measuring = self.method.columns and self._schedule.measures(self.step)
        if measuring:
            self._measure()
        self._restrict_mergers()
        for one_pass in self.method.passes:
            nn.utils.clip_grad_norm_(
                self._trained_by(one_pass), self.settings.max_grad_norm, foreach=True
            )
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_lr"] * self.settings.lr_factor(self.step)
        scale = self._loss_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._loss_scale() >= scale:  # a smaller scale says that the update was skipped
            self._updates += 1
        self._forget_gradients()
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
            if self._overflow:
                continue
            if self.settings.importance == "magnitude":
                branch.score += branch.step_score / self._loss_scale()
            elif branch.up.grad is not None:
                branch.score += signed_importance(branch.up, branch.up.grad)

    def _open_columns(self) -> None:
        first = self.step < self._schedule.every
        for pair in self.attachment.pairs.values():
            recalibrate(pair, self.settings.columns, first=first)
        # A column that stays closed gets no gradient; without this, momentum from the window
        # would go on moving it.
        for _, _, branch in self.attachment.branches():
            if branch.limited and branch.up in self._optimizer.state:
                self._optimizer.state[branch.up]["exp_avg"][~branch.mask] = 0

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
        """The parameters with a gradient of the pass's branches: independent LoRAs are clipped
        apart."""
        return [
            parameter
            for _, name, branch in self.attachment.branches()
            if name in one_pass.branches
            for parameter in (branch.down, branch.up, branch.merger)
            if parameter.grad is not None
        ]

    def _check_gradients(self, measuring: bool) -> None:
        """Stops a run that would silently learn nothing: each lora_up must have a gradient before
        the first update, each lora_down before the second (B starts at zero), and mergers at the
        first step after a window; and all must be finite."""
        gradients = [p.grad for _, p in self.attachment.named_parameters() if p.grad is not None]
        norms = torch.stack([norm.cpu() for norm in torch._foreach_norm(gradients)])
        self._overflow = not norms.isfinite().all()
        if self._overflow and self._scaler.is_enabled():
            return  # the scaler skips this update and halves its scale
        if self._overflow:
            raise TrainingFailed(
                f"The gradients became infinite or NaN at step {self.step + 1}. Start again "
                f"with a learning rate below {self.settings.chosen_lr:g}, or a base model in bf16 "
                "or fp32."
            )
        if self._updates == 0:
            self._require_gradient("up")
        if self._updates == 1:
            self._require_gradient("down")
        if self.method.columns and not measuring and self._schedule.measures(self.step - 1):
            self._require_gradient("merger")

    def _require_gradient(self, part: str) -> None:
        for layer, name, branch in self.attachment.branches():
            gradient = getattr(branch, part).grad
            if part == "merger" and not branch.mask.any():
                continue
            if gradient is None or not gradient.any():
                raise TrainingFailed(
                    f"The layer {layer} gets no gradient for its {name} LoRA ({part}), so it "
                    "would learn nothing. Another extension or attention option may be in the "
                    "way; turn it off, or report this with the run's log."
                )

    def _loss_scale(self) -> float:
        return float(self._scaler.get_scale()) if self._scaler.is_enabled() else 1.0

    def _forget_gradients(self) -> None:
        for _, parameter in self.attachment.named_parameters():
            parameter.grad = None

    def _make_optimizer(self) -> torch.optim.AdamW:
        weights, mergers = [], []
        for _, _, branch in self.attachment.branches():
            weights += [branch.down, branch.up]
            mergers.append(branch.merger)
        decay = self.settings.weight_decay
        groups: list[dict[str, Any]] = [
            {"params": weights, "full_lr": self.settings.chosen_lr, "weight_decay": decay}
        ]
        if self.method.columns:
            lr = self.settings.chosen_merger_lr
            groups.append({"params": mergers, "full_lr": lr, "weight_decay": 0.0})
        try:
            return torch.optim.AdamW(groups, lr=self.settings.chosen_lr, fused=True)
        except RuntimeError:  # torch 2.1 to 2.3 fuse on CUDA only
            return torch.optim.AdamW(groups, lr=self.settings.chosen_lr, foreach=True)


def _loss_scaler(device: torch.device, *, enabled: bool) -> Any:
    """torch's dynamic loss scaler, which does nothing unless the base computes in fp16."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled and device.type == "cuda")  # torch < 2.3


def _copy(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise ValueError(f"expected {tuple(target.shape)}, found {tuple(source.shape)}")
    target.copy_(source)
