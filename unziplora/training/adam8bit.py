"""Adam's two moments in 8 bits each, and weights rounded to bf16 without losing small updates.

A number is a code and its block's scale. A code is a small float, cut out of the bits of one in
fp32: four bits of exponent, and as many of the mantissa as there is room for:

    first moment:         m = +-scale * (small(k) - 2^-16)    k of 7 bits beside the sign
    second moment:  sqrt(v) =   scale * small(k)              k of 8 bits
    small(k) = 2^(k // n - 16) * (1 + (k mod n) / n)          n = 8 and 16

The scale gives the block's largest magnitude the largest code. Codes keep a relative precision of
6 % and 3 % over sixteen octaves (Dettmers et al. 2022, arXiv 2110.02861, use a table for the same
end). v moves by a thousandth of itself a step, far less than one code, so rounding is stochastic:
random bits are added below those that are cut off, which is right on average, where rounding to
the nearest would stand still. The second moment's smallest code is not zero, because m is divided
by it.

States of version 0.2.0 have logarithmic codes, and the first moment's in int8; they are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_BLOCK = 256  # numbers that share a scale, at most
_FIRST_BITS, _SECOND_BITS = 3, 4  # of the mantissa
_LEAST = 2.0**-16  # small(0)
_EXPONENT = 127 - 16  # of _LEAST, as fp32 has it
_FIRST_MOST = (1 - 2.0**-4) - _LEAST  # of a first moment, before the scale
_SECOND_MOST = 1 - 2.0**-5
FP32 = ("exp_avg", "exp_avg_sq")  # the keys of a state's moments
_ALL = slice(None)
_TINY = torch.finfo(torch.float32).tiny


class Moments:
    """Both moments of several tensors of these sizes, laid end to end."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self.sizes = list(sizes)
        self.block = math.gcd(_BLOCK, *self.sizes)
        blocks = sum(self.sizes) // self.block
        self._first = torch.zeros(blocks, self.block, dtype=torch.uint8, device=device)
        self._second = torch.zeros(blocks, self.block, dtype=torch.uint8, device=device)
        self._first_scale = torch.zeros(blocks, 1, device=device)
        self._second_scale = torch.zeros(blocks, 1, device=device)

    def read(self, rows: slice = _ALL) -> tuple[Tensor, Tensor]:
        """(m, v), fp32, (blocks, block): all tensors' numbers in order, or some of the blocks."""
        root = decode_second(self._second[rows], self._second_scale[rows])
        return decode_first(self._first[rows], self._first_scale[rows]), root.square_()

    def write(
        self, m: Tensor, v: Tensor, generator: torch.Generator | None, rows: slice = _ALL
    ) -> None:
        """Keeps moments in the form of `read`; rounded to the nearest code without a generator."""
        _put(self._in(rows), m, v, generator)

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
            if saved["exp_avg"].dtype == torch.uint8:
                for key, tensor in own.items():
                    tensor.copy_(saved[key])
                return
            saved = in_fp32(saved)
        m, v = (saved[key].to(own["exp_avg"].device).view(-1, self.block) for key in FP32)
        _put(own, m, v, None)

    def forget_first(self, which: int, row: int, rows: Tensor) -> None:
        """m = 0 in some rows (a mask) of tensor number `which`, whose rows have `row` numbers."""
        self.tensors(which)["exp_avg"].view(-1, row)[rows] = 0


def decode_first(codes: Tensor, scale: Tensor) -> Tensor:
    """m of codes (n, block) and scale (n, 1)."""
    codes = codes.to(torch.int32)
    size = _float(codes & 127, _FIRST_BITS).sub_(_LEAST).mul_(scale)
    codes &= 128
    codes <<= 24
    size.view(torch.int32).bitwise_or_(codes)
    return size


def decode_second(codes: Tensor, scale: Tensor) -> Tensor:
    """sqrt(v) of codes (n, block) and scale (n, 1)."""
    return _float(codes.to(torch.int32), _SECOND_BITS).mul_(scale)


def in_fp32(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flat fp32 moments of a state's 8-bit ones."""
    first = saved["exp_avg"], saved["exp_avg_scale"]
    second = saved["exp_avg_sq"], saved["exp_avg_sq_scale"]
    if first[0].dtype == torch.int8:  # version 0.2.0
        steps = first[0].float()
        m = torch.exp2((steps.abs() - 127) / 8) * first[1] * steps.sign()
        root = torch.exp2((second[0].float() - 255) / 16) * second[1]
    else:
        m, root = decode_first(*first), decode_second(*second)
    return {"exp_avg": m.flatten(), "exp_avg_sq": root.square().flatten()}


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
    scale = into["exp_avg_scale"].copy_(size.amax(dim=1, keepdim=True).div_(_FIRST_MOST))
    root_scale = into["exp_avg_sq_scale"].copy_(root.amax(dim=1, keepdim=True).div_(_SECOND_MOST))
    size.div_(scale.clamp(min=_TINY)).add_(_LEAST)
    root.div_(root_scale.clamp(min=_TINY))
    first = second = None
    if generator is not None:
        # 31 bits: the lowest 20 for m, the highest 19 for v, to which those that both have are the
        # least of its own
        first = torch.empty(m.shape, dtype=torch.int32, device=m.device)
        first.random_(generator=generator)
        second = first >> 12
        first &= 0xFFFFF
    sign = m.view(torch.int32) >> 24
    sign &= 128
    into["exp_avg"].copy_(_codes(size, _FIRST_BITS, first).clamp_(max=127).bitwise_or_(sign))
    into["exp_avg_sq"].copy_(_codes(root, _SECOND_BITS, second).clamp_(0, 255))


def _codes(x: Tensor, bits: int, noise: Tensor | None) -> Tensor:
    """Codes, in int32 and not yet within their limits, of positive numbers; x is used up.
    noise: random integers, of as many bits as are cut off; to the nearest without."""
    cut = 23 - bits
    found = x.view(torch.int32)
    found += 1 << (cut - 1) if noise is None else noise
    found >>= cut
    return found.sub_(_EXPONENT << bits)


def _float(codes: Tensor, bits: int) -> Tensor:
    """small(k) of codes in int32, which are used up."""
    codes += _EXPONENT << bits
    codes <<= 23 - bits
    return codes.view(torch.float32)
