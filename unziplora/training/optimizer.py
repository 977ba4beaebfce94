"""From gradients to new weights: checked, clipped, and applied by AdamW.

Mergers have torch's AdamW, and so have A and B under a plan with moments in fp32. With moments in 8
bits A and B have their own (training/bucket_adam.py), in the small plans during the backward pass
(training/fused_backward.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import TrainingFailed
from unziplora.training.adam8bit import FP32, in_fp32
from unziplora.training.bucket_adam import BucketAdam
from unziplora.training.fused_backward import InBackward
from unziplora.training.loss_scale import loss_scaler
from unziplora.training.memory_plans import Plan
from unziplora.training.settings import ResolvedSettings
from unziplora.unet.attach import Attachment


class LoraOptimizer:
    """One optimizer for an attachment's parameters, and what it keeps of them.

    fp16: the base is in fp16, where small gradients vanish unless the loss is scaled.
    consistent: False while an update is half done.
    done: updates so far, without those that the loss scaler skipped.
    overflow: this step's gradients are not finite, and the loss scaler will skip it.
    """

    def __init__(
        self,
        attachment: Attachment,
        settings: ResolvedSettings,
        plan: Plan,
        device: torch.device,
        *,
        fp16: bool,
    ) -> None:
        self.consistent, self.overflow, self.done = True, False, 0
        self._attachment, self._settings = attachment, settings
        self._norms: dict[nn.Parameter, float] = {}  # of this step's gradients, before clipping
        self._in_backward = self._make_in_backward() if plan.in_backward else None
        self._eight_bit = self._in_backward or (self._make_eight_bit() if plan.eight_bit else None)
        self._optimizer = self._make_optimizer()
        self._all = _Together(self._optimizer, self._eight_bit if not plan.in_backward else None)
        self._scaler = loss_scaler(device, enabled=fp16 and not plan.in_backward)

    @property
    def loss_scale(self) -> float:
        return float(self._scaler.get_scale()) if self._scaler.is_enabled() else 1.0

    def begin(self, lr_factor: float, *, signed: bool) -> None:
        """Before a step's backward passes. signed: in the small plans, the signed importance is
        added to the branches' `step_score`, for afterwards the gradients are gone."""
        self.forget_gradients()
        if self._eight_bit is not None:
            self._eight_bit.begin(self.done, self._settings.lr * lr_factor)
        if self._in_backward is not None:
            self._in_backward.signed = signed

    def gathering(self) -> AbstractContextManager[None]:
        """Backward passes within only add to the step's gradients, also under a plan that updates
        during a backward pass; the pass after them updates with all."""
        return self._in_backward.gathering() if self._in_backward else nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()

    def unscale(self) -> None:
        self._scaler.unscale_(self._all)

    def check(self, step: int) -> None:
        """Reads the gradients' norms. Raises TrainingFailed where one is not finite, unless the
        loss scaler is there to skip the update and halve its scale."""
        self._norms = self._read_norms()
        self.overflow = not all(map(math.isfinite, self._norms.values()))
        if self.overflow and not self._scaler.is_enabled():
            raise TrainingFailed(
                f"The gradients became infinite or NaN at step {step + 1}. Start again "
                f"with a learning rate below {self._settings.lr:g}, or a base model in "
                "bf16 or fp32."
            )

    def norm(self, parameter: nn.Parameter) -> float | None:
        """Of this step's gradient, as it was when it was checked; None where there is none."""
        return self._norms.get(parameter)

    def apply(self, clipped_together: Sequence[Sequence[nn.Parameter]], lr_factor: float) -> None:
        """AdamW on what has a gradient. The norm of each of these groups is limited first."""
        for parameters in clipped_together:
            self._clip([p for p in parameters if p.grad is not None])
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_lr"] * lr_factor
        scale = self.loss_scale
        self._scaler.step(self._all)
        self._scaler.update()
        if self.loss_scale >= scale:  # a smaller scale says that the update was skipped
            self.done += 1
        self.forget_gradients()

    def forget_gradients(self) -> None:
        for _, parameter in self._attachment.named_parameters():
            parameter.grad = None

    def forget_momentum(self) -> None:
        """A column that stays closed gets no gradient; without this, momentum would keep moving
        it."""
        for _, _, branch in self._attachment.branches():
            if not branch.limited:
                continue
            if self._eight_bit is not None:
                self._eight_bit.forget_momentum(branch, ~branch.mask)
            elif branch.up in self._optimizer.state:
                self._optimizer.state[branch.up]["exp_avg"][~branch.mask] = 0

    def tensors(self) -> dict[str, Tensor]:
        """The moments of each parameter, by its name; not copies."""
        tensors = {}
        for name, parameter in self._attachment.named_parameters():
            if self._eight_bit is not None and parameter in self._eight_bit:
                moments: Mapping[str, Tensor] = self._eight_bit.tensors(parameter)
            else:
                moments = self._optimizer.state.get(parameter, {})
            tensors.update({f"{name}:{key}": value for key, value in moments.items()})
        return tensors

    def numbers(self) -> dict[str, Any]:
        return {"updates": self.done, "scaler": self._scaler.state_dict()}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Takes back what `tensors` and `numbers` gave, also under another plan."""
        done = int(numbers["updates"])
        keys = (*FP32, *(f"{key}_scale" for key in FP32), "step")
        for name, parameter in self._attachment.named_parameters():
            saved = {key: tensors[f"{name}:{key}"] for key in keys if f"{name}:{key}" in tensors}
            if saved:
                self._restore_moments(parameter, saved, done)
        if numbers["scaler"]:  # empty where the plan that saved it had no use for one
            self._scaler.load_state_dict(numbers["scaler"])
        self.done = done

    def _restore_moments(
        self, parameter: nn.Parameter, saved: Mapping[str, Tensor], done: int
    ) -> None:
        """In 8 bits or fp32 as this plan keeps them, whatever the state has."""
        if self._eight_bit is not None and parameter in self._eight_bit:
            self._eight_bit.restore(parameter, saved)
            return
        moments = in_fp32(saved) if "exp_avg_scale" in saved else saved
        step = saved["step"].clone() if "step" in saved else torch.tensor(float(done))
        if self._optimizer.defaults.get("fused"):  # then torch counts on the device
            step = step.to(parameter.device)
        self._optimizer.state[parameter] = {
            "step": step,
            **{k: moments[k].to(parameter, copy=True).view_as(parameter) for k in FP32},
        }

    def _read_norms(self) -> dict[nn.Parameter, float]:
        """The norm of each gradient of this step, those already used up too; read at once, because
        each reading waits for a GPU."""
        graded = [p for _, p in self._attachment.named_parameters() if p.grad is not None]
        norms = dict(zip(graded, norms_of([p.grad for p in graded]), strict=True))
        if self._in_backward is not None and self._in_backward.norms:
            used = self._in_backward.norms
            norms.update(zip(used, torch.stack(list(used.values())).tolist(), strict=True))
        return norms

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        """Scales gradients so that their norm together is at most the setting's."""
        total = math.sqrt(sum(self._norms[parameter] ** 2 for parameter in parameters))
        factor = self._settings.max_grad_norm / (total + 1e-6)
        if factor < 1:
            gradients: list[Any] = [parameter.grad for parameter in parameters]
            torch._foreach_mul_(gradients, factor)

    def _make_in_backward(self) -> InBackward:
        return InBackward(
            self._attachment,
            weight_decay=self._settings.weight_decay,
            max_norm=self._settings.max_grad_norm,
            seed=self._settings.seed,
            lora_plus=self._settings.lora_plus,
            before_update=self._begun,
        )

    def _make_eight_bit(self) -> BucketAdam:
        settings = self._settings
        return BucketAdam(
            self._attachment,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            lora_plus=settings.lora_plus,
        )

    def _begun(self) -> None:
        self.consistent = False

    def _make_optimizer(self) -> torch.optim.AdamW:
        """For what has its moments in fp32."""
        settings = self._settings
        branches = [branch for _, _, branch in self._attachment.branches()]
        mergers = [branch.merger for branch in branches]
        groups: list[dict[str, Any]] = [
            {"params": mergers, "full_lr": settings.merger_lr, "weight_decay": 0.0}
        ]
        if self._eight_bit is None:
            # LoRA+ (Hayou et al. 2024): B learns at a multiple of A's rate
            lr, lr_of_b = settings.lr, settings.lora_plus * settings.lr
            for weights, full_lr in (
                ([branch.down for branch in branches], lr),
                ([branch.up for branch in branches], lr_of_b),
            ):
                decay = settings.weight_decay
                groups.append({"params": weights, "full_lr": full_lr, "weight_decay": decay})
        try:  # with copies of the groups, into which torch writes its own
            return torch.optim.AdamW([dict(group) for group in groups], lr=settings.lr, fused=True)
        except RuntimeError:  # torch 2.1 to 2.3 fuse on CUDA only
            return torch.optim.AdamW(groups, lr=settings.lr, foreach=True)


class _Together:
    """What the loss scaler takes for one optimizer: it steps all of it or nothing.

    param_groups: whose gradients it unscales.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, eight_bit: BucketAdam | None) -> None:
        self._optimizer, self._eight_bit = optimizer, eight_bit
        self.param_groups = list(optimizer.param_groups)
        if eight_bit is not None:
            self.param_groups.append({"params": list(eight_bit)})

    def step(self) -> None:
        if self._eight_bit is not None:
            self._eight_bit.apply_all()
        self._optimizer.step()


def norms_of(tensors: list[Any]) -> list[float]:
    """The norm of each tensor: few kernels for thousands of them, and one wait for a GPU."""
    if not tensors:
        return []
    norms: list[float] = torch.stack([n.float() for n in torch._foreach_norm(tensors)]).tolist()
    return norms
