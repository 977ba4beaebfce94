"""AdamW on A and B during the backward pass, so that gradients are never there together.

A bucket is updated when its last gradient has come, and its gradients are dropped. Two things
follow. Clipping is per tensor, since the norm of all gradients is known at the end only. And it
does not go with fp16 loss scaling, which looks at all gradients before the first update: a base in
fp16 is differentiated in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unziplora.method.functional import signed_importance
from unziplora.training.bucket_adam import Bucket, BucketAdam
from unziplora.unet.attach import Attachment


class InBackward(BucketAdam):
    """Updates the A and B of an attachment from hooks on their gradients.

    before_update: called when a step's first bucket is about to change.
    signed: the signed importance is added to the branches' `step_score`.
    norms: of this step's gradients before clipping, 0-dimensional, by parameter.
    """

    def __init__(
        self,
        attachment: Attachment,
        *,
        weight_decay: float,
        seed: int,
        lora_plus: float,
        max_norm: float,
        before_update: Callable[[], None],
    ) -> None:
        super().__init__(attachment, weight_decay=weight_decay, seed=seed, lora_plus=lora_plus)
        self.norms: dict[nn.Parameter, Tensor] = {}
        self.signed = self._gathers = False
        self._gathered: dict[nn.Parameter, Tensor] = {}
        self._before_update, self._max_norm = before_update, max_norm
        for parameter in self:
            parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    def begin(self, update: int, lr: float) -> None:
        """Before a step's backward passes. update: how many came before."""
        super().begin(update, lr)
        self.norms.clear()
        self._gathered.clear()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Gradients that come within update nothing; they are added to the next pass's."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
        for parameter in self:
            if parameter.grad is not None:
                self._gathered[parameter], parameter.grad = parameter.grad, None

    def _arrived(self, parameter: nn.Parameter) -> None:
        if self._gathers:
            return
        bucket, _ = self._places[parameter]
        if any(member.grad is None for member in bucket.parameters):
            return
        for member in bucket.parameters:
            earlier = self._gathered.pop(member, None)
            if earlier is not None and member.grad is not None:
                member.grad += earlier
        if not self.norms:
            self._before_update()
        if self.signed:
            self._measure(bucket)
        self.apply(bucket, self._taken(bucket))

    @torch.no_grad()
    def _measure(self, bucket: Bucket) -> None:
        for branch in bucket.branches:
            assert branch.up.grad is not None
            branch.step_score += signed_importance(branch.up, branch.up.grad)

    @torch.no_grad()
    def _taken(self, bucket: Bucket) -> list[Tensor]:
        """A bucket's gradients, each clipped to the largest norm; they are dropped.

        One that is not finite counts as zero: the step fails when its norm is read, and until then
        it spoils nothing.
        """
        gradients = []
        for parameter in bucket.parameters:
            assert parameter.grad is not None
            grad = parameter.grad.float()
            norm = torch.linalg.vector_norm(grad)
            self.norms[parameter] = norm
            factor = (self._max_norm / (norm + 1e-6)).clamp(max=1.0)
            gradients.append(torch.where(norm.isfinite(), grad * factor, 0.0))
            parameter.grad = None
        return gradients
