"""Adam's two moments in 8 bits each, and weights rounded to bf16 without losing small updates.

A number is a code k and its block's scale, the largest magnitude in the block:

    first moment:         m = sign(k) * scale * 2^((|k| - 127) / 8),    0 where k = 0
    second moment:  sqrt(v) =           scale * 2^((k - 255) / 16)

Logarithmic codes keep a relative precision of 9 % and 4 % over sixteen octaves (Dettmers et al.
2022, arXiv 2110.02861, use a table for the same end). v moves by a thousandth of itself a step,
far less than one code, so rounding is stochastic: right on average, where rounding to the nearest
would stand still. The second moment's smallest code is not zero, because m is divided by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_BLOCK = 256  # numbers that share a scale, at most
_FIRST_TOP, _FIRST_OCTAVE = 127, 8
_SECOND_TOP, _SECOND_OCTAVE = 255, 16
FP32 = ("exp_avg", "exp_avg_sq")  # the keys of a state's moments
_TINY = torch.finfo(torch.float32).tiny


class Moments:
    """Both moments of several tensors of these sizes, laid end to end."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self.sizes = list(sizes)
        self.block = math.gcd(_BLOCK, *self.sizes)
        blocks = sum(self.sizes) // self.block
        self._first = torch.zeros(blocks, self.block, dtype=torch.int8, device=device)
        self._second = torch.zeros(blocks, self.block, dtype=torch.uint8, device=device)
        self._first_scale = torch.zeros(blocks, 1, device=device)
        self._second_scale = torch.zeros(blocks, 1, device=device)

    def read(self) -> tuple[Tensor, Tensor]:
        """(m, v), fp32, (blocks, block): all tensors' numbers in order."""
        root = decode_second(self._second, self._second_scale)
        return decode_first(self._first, self._first_scale), root.square_()

    def write(self, m: Tensor, v: Tensor, generator: torch.Generator | None) -> None:
        """Keeps moments in the form of `read`; rounded to the nearest code without a generator."""
        _put(self._in(slice(None)), m, v, generator)

    def tensors(self, which: int) -> dict[str, Tensor]:
        """What tensor number `which` has here, flat, by the keys of a saved state; views."""
        start = sum(self.sizes[:which]) // self.block
        return self._in(slice(start, start + self.sizes[which] // self.block))

    def _in(self, rows: slice) -> dict[str, Tensor]:
        return {
            "exp_avg": self._first[rows],
            "exp_avg_scale": self._first_scale[rows],
            "exp_avg_sq": self._second[rows],
            "exp_avg_sq_scale": self._second_scale[rows],
        }

    def restore(self, which: int, saved: Mapping[str, Tensor]) -> None:
        """Takes one tensor's moments from a state, in this form exactly or in fp32. Raises
        ValueError where they are another tensor's."""
        own = self.tensors(which)
        if "exp_avg_scale" in saved:
            if any(tensor.shape != saved[key].shape for key, tensor in own.items()):
                raise ValueError("the moments are of another size")
            for key, tensor in own.items():
                tensor.copy_(saved[key])
            return
        m, v = (saved[key].to(own["exp_avg"].device).view(-1, self.block) for key in FP32)
        _put(own, m, v, None)

    def forget_first(self, which: int, row: int, rows: Tensor) -> None:
        """m = 0 in some rows (a mask) of tensor number `which`, whose rows have `row` numbers."""
        self.tensors(which)["exp_avg"].view(-1, row)[rows] = 0


def decode_first(codes: Tensor, scale: Tensor) -> Tensor:
    """m of codes (n, block) and scale (n, 1)."""
    steps = codes.float()
    size = torch.exp2((steps.abs() - _FIRST_TOP) / _FIRST_OCTAVE) * scale
    return size.mul_(steps.sign_())


def decode_second(codes: Tensor, scale: Tensor) -> Tensor:
    """sqrt(v) of codes (n, block) and scale (n, 1)."""
    return torch.exp2((codes.float() - _SECOND_TOP) / _SECOND_OCTAVE).mul_(scale)


def in_fp32(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flat fp32 moments of a state's 8-bit ones."""
    root = decode_second(saved["exp_avg_sq"], saved["exp_avg_sq_scale"])
    first = decode_first(saved["exp_avg"], saved["exp_avg_scale"])
    return {"exp_avg": first.flatten(), "exp_avg_sq": root.square_().flatten()}


def rounded(x: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """fp32 x in fp32 or bf16: up or down at random, so that the mean is x.

    In bf16 a weight of 0.03 has its neighbours 1.2e-4 away, and an update of 5e-5 rounded to the
    nearest would always be lost.
    """
    if dtype == torch.float32:
        return x
    noise = torch.randint(1 << 16, x.shape, dtype=torch.int32, device=x.device, generator=generator)
    return ((x.view(torch.int32) + noise) & -(1 << 16)).view(torch.float32).to(dtype)


def _put(
    into: Mapping[str, Tensor], m: Tensor, v: Tensor, generator: torch.Generator | None
) -> None:
    """Codes and scales of m and v, (n, block), in the tensors of `Moments.tensors`."""
    size, root = m.abs(), v.sqrt()
    scale, root_scale = size.amax(dim=1, keepdim=True), root.amax(dim=1, keepdim=True)
    steps = _log_steps(size, scale, _FIRST_TOP, _FIRST_OCTAVE, generator)
    into["exp_avg"].copy_(steps.mul_(m.sign()))
    into["exp_avg_scale"].copy_(scale)
    into["exp_avg_sq"].copy_(_log_steps(root, root_scale, _SECOND_TOP, _SECOND_OCTAVE, generator))
    into["exp_avg_sq_scale"].copy_(root_scale)


def _log_steps(
    size: Tensor, scale: Tensor, top: int, octave: int, generator: torch.Generator | None
) -> Tensor:
    """Codes 0 to top, as floats, of magnitudes up to scale."""
    steps = torch.log2(size / scale.clamp(min=_TINY)).mul_(octave).add_(top)
    if generator is None:
        steps.add_(0.5)
    else:
        steps.add_(torch.rand(size.shape, device=size.device, generator=generator))
    return steps.floor_().clamp_(0, top)
