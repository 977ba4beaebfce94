"""Adam on A and B during the backward pass, so that gradients are never there together.

The parameters of one branch in one transformer block are a bucket: it is updated when its last
gradient has come, and its gradients are dropped. Two things follow. Clipping is per tensor, since
the norm of all gradients is known at the end only. And it does not go with fp16 loss scaling,
which looks at all gradients before the first update: a base in fp16 is differentiated in bf16.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.method.branches import Branch
from unziplora.method.functional import signed_importance
from unziplora.training.adam8bit import Moments, rounded
from unziplora.unet.attach import Attachment

_BLOCK = re.compile(r".*\.transformer_blocks\.\d+")
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # torch's defaults, as in the other plans


class InBackward:
    """Updates the A and B of an attachment from hooks on their gradients.

    before_update: called when a step's first bucket is about to change.
    norms: of this step's gradients before clipping, 0-dimensional, by parameter.
    """

    def __init__(
        self,
        attachment: Attachment,
        *,
        weight_decay: float,
        max_norm: float,
        seed: int,
        before_update: Callable[[], None],
    ) -> None:
        self.norms: dict[nn.Parameter, Tensor] = {}
        self._before_update = before_update
        self._decay, self._max_norm, self._seed = weight_decay, max_norm, seed
        self._lr, self._optimizer, self._signed = 0.0, 0, False
        members: dict[tuple[str, str], list[Branch]] = {}
        for layer, name, branch in attachment.branches():
            match = _BLOCK.match(layer)
            members.setdefault((match[0] if match else layer, name), []).append(branch)
        self._buckets = [_Bucket(branches) for branches in members.values()]
        self._places = {
            parameter: (bucket, number)
            for bucket in self._buckets
            for number, parameter in enumerate(bucket.parameters)
        }
        self._generator = torch.Generator(device=self._buckets[0].device)
        for parameter in self._places:
            parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    def begin(self, update: int, lr: float, *, signed: bool) -> None:
        """Before a step's backward passes. update: how many came before; signed: add the signed
        importance to the branches' `step_score`.

        The random numbers of rounding follow from seed and update alone, so that a resumed run
        draws the same.
        """
        self._optimizer, self._lr, self._signed = update, lr, signed
        self.norms.clear()
        self._generator.manual_seed((self._seed * 1_000_003 + update) % 2**63)

    def _arrived(self, parameter: nn.Parameter) -> None:
        bucket, _ = self._places[parameter]
        if any(member.grad is None for member in bucket.parameters):
            return
        if not self.norms:
            self._before_update()
        self._apply(bucket)

    @torch.no_grad()
    def _apply(self, bucket: _Bucket) -> None:
        """AdamW (Loshchilov & Hutter 2019) on one bucket, in fp32."""
        if self._signed:
            for branch in bucket.branches:
                assert branch.up.grad is not None
                branch.step_score += signed_importance(branch.up, branch.up.grad)
        grad = self._taken(bucket)
        weight = bucket.flat([p.detach() for p in bucket.parameters])
        m, v = bucket.moments.read()
        m.lerp_(grad, 1 - _BETA1)
        v.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        bucket.moments.write(m, v, self._generator)
        t = self._optimizer + 1
        v.sqrt_().div_((1 - _BETA2**t) ** 0.5).add_(_EPS)
        weight.mul_(1 - self._lr * self._decay)
        weight.addcdiv_(m, v, value=-self._lr / (1 - _BETA1**t))
        bucket.put(rounded(weight, bucket.parameters[0].dtype, self._generator))

    def _taken(self, bucket: _Bucket) -> Tensor:
        """A bucket's gradients, each clipped to the largest norm, flat; they are dropped.

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
        return bucket.flat(gradients)

    def forget_momentum(self, branch: Branch, rows: Tensor) -> None:
        """m = 0 in some rows (a mask) of B."""
        bucket, number = self._places[branch.up]
        bucket.moments.forget_first(number, branch.rank, rows)

    def tensors(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What a state keeps of one parameter."""
        bucket, number = self._places[parameter]
        return bucket.moments.tensors(number)

    def restore(self, parameter: nn.Parameter, saved: Mapping[str, Tensor]) -> None:
        bucket, number = self._places[parameter]
        bucket.moments.restore(number, saved)

    def __contains__(self, parameter: Any) -> bool:
        return parameter in self._places


class _Bucket:
    """A and B of one branch in one transformer block, and their moments."""

    def __init__(self, branches: list[Branch]) -> None:
        self.branches = branches
        self.parameters = [p for branch in branches for p in (branch.down, branch.up)]
        self.device = self.parameters[0].device
        self.moments = Moments([p.numel() for p in self.parameters], self.device)

    def flat(self, tensors: list[Tensor]) -> Tensor:
        """Tensors like the parameters, end to end in fp32, (blocks, block)."""
        together = torch.cat([tensor.flatten() for tensor in tensors])
        return together.float().view(-1, self.moments.block)

    def put(self, flat: Tensor) -> None:
        """The parameters' new values."""
        parts = torch.split(flat.flatten(), self.moments.sizes)
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
