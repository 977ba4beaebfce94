"""AdamW on A and B with moments in 8 bits, a bucket at a time.

The parameters of one branch in one transformer block are a bucket: their numbers lie end to end,
so that an update is a few kernels for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.method.branches import Branch
from unziplora.training.adam8bit import Moments, rounded
from unziplora.unet.attach import Attachment

_BLOCK = re.compile(r".*\.transformer_blocks\.\d+")
_IN_CACHE = 1 << 17  # numbers, of which an update holds about eight arrays
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # torch's defaults, as in the other plans


class Bucket:
    """A and B of one branch in one transformer block, and their moments.

    lora_plus: the learning rate of B over that of A.
    """

    def __init__(self, branches: list[Branch], lora_plus: float) -> None:
        self.branches, self._lora_plus = branches, lora_plus
        self.parameters = [p for branch in branches for p in (branch.down, branch.up)]
        self.device = self.parameters[0].device
        self.moments = Moments([p.numel() for p in self.parameters], self.device)

    def flat(self, tensors: list[Tensor]) -> Tensor:
        """Tensors like the parameters, end to end in fp32, (blocks, block)."""
        together = torch.cat([tensor.flatten() for tensor in tensors])
        return together.float().view(-1, self.moments.block)

    def portions(self) -> Iterator[slice]:
        """Blocks to update at once: all of them, on a CPU as many as its cache holds."""
        blocks = sum(self.moments.sizes) // self.moments.block
        at_once = max(1, _IN_CACHE // self.moments.block) if self.device.type == "cpu" else blocks
        for start in range(0, blocks, at_once):
            yield slice(start, start + at_once)

    def lr_factors(self) -> Tensor:
        """What each number's learning rate is multiplied with, (blocks, 1), or (1, 1)."""
        if self._lora_plus == 1:
            return torch.ones(1, 1, device=self.device)
        blocks = torch.tensor([size // self.moments.block for size in self.moments.sizes])
        factors = torch.tensor([1.0, self._lora_plus]).repeat(len(self.branches))
        return factors.repeat_interleave(blocks)[:, None].to(self.device)

    def put(self, flat: Tensor) -> None:
        """The parameters' new values."""
        parts = torch.split(flat.flatten(), self.moments.sizes)
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))


class BucketAdam:
    """AdamW (Loshchilov & Hutter 2019) on the A and B of an attachment, in fp32.

    The random numbers of rounding follow from seed and update alone, so that a resumed run draws
    the same. lora_plus: the learning rate of B over that of A (Hayou et al. 2024).
    """

    def __init__(
        self, attachment: Attachment, *, weight_decay: float, seed: int, lora_plus: float = 1.0
    ) -> None:
        self._decay, self._seed = weight_decay, seed
        self._lr, self._update = 0.0, 0
        members: dict[tuple[str, str], list[Branch]] = {}
        for layer, name, branch in attachment.branches():
            match = _BLOCK.match(layer)
            members.setdefault((match[0] if match else layer, name), []).append(branch)
        self._buckets = [Bucket(branches, lora_plus) for branches in members.values()]
        self._places = {
            parameter: (bucket, number)
            for bucket in self._buckets
            for number, parameter in enumerate(bucket.parameters)
        }
        self._generator = torch.Generator(device=self._buckets[0].device)

    def begin(self, update: int, lr: float) -> None:
        """Before an update. update: how many came before."""
        self._update, self._lr = update, lr
        self._generator.manual_seed((self._seed * 1_000_003 + update) % 2**63)

    def apply_all(self) -> None:
        """The update, from gradients that are checked and clipped; they are dropped."""
        for bucket in self._buckets:
            if all(parameter.grad is not None for parameter in bucket.parameters):
                self.apply(bucket, [p.grad for p in bucket.parameters if p.grad is not None])
                for parameter in bucket.parameters:
                    parameter.grad = None

    @torch.no_grad()
    def apply(self, bucket: Bucket, gradients: list[Tensor]) -> None:
        """One bucket's update."""
        grad = bucket.flat(gradients)
        weight = bucket.flat([p.detach() for p in bucket.parameters])
        factors = bucket.lr_factors().expand(len(weight), 1)
        for rows in bucket.portions():
            self._update_rows(bucket.moments, rows, weight[rows], grad[rows], factors[rows])
        bucket.put(rounded(weight, bucket.parameters[0].dtype, self._generator))

    def _update_rows(
        self, moments: Moments, rows: slice, weight: Tensor, grad: Tensor, factors: Tensor
    ) -> None:
        """AdamW on some blocks; weight is changed."""
        m, v = moments.read(rows)
        m.lerp_(grad, 1 - _BETA1)
        v.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        moments.write(m, v, self._generator, rows)
        t = self._update + 1
        v.sqrt_().div_((1 - _BETA2**t) ** 0.5).add_(_EPS)
        weight.mul_(1 - self._lr * self._decay * factors)
        weight.addcdiv_(m.mul_(factors), v, value=-self._lr / (1 - _BETA1**t))

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

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._places)
