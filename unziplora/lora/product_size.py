"""Products of a file's factors, which are made only where a layer can have so many numbers: two
vectors of a file of 64 kB may have a product of gigabytes."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_NUMBERS = 2**27  # twice those of the largest layer of the models that LoRAs are made for


def with_core(down: Tensor, core: Tensor) -> Tensor:
    """Tucker's form of a convolution's LoRA with its core (n, m, h, w) in down (m, i), exactly.
    Raises ValueError where that is larger than any layer."""
    _check_numbers(core[:, 0].numel() * down[0].numel())
    return torch.einsum("n m h w, m i -> n i h w", core.float(), down.flatten(1).float())


def factors_of_layer(
    a: Tensor, b: Tensor, core: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """LoKr's two in fp32, to be multiplied. Raises ValueError where their product is larger than
    any layer."""
    rows = a[:, 0].numel() if core is None else a[0].numel() * core[0, 0].numel()
    _check_numbers(rows * b[0].numel())
    return a.float(), b.float(), core


def parts_of_layer(w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    """The two of a Kronecker product. Raises ValueError where that is larger than any layer."""
    _check_numbers(w1.numel() * w2.numel())
    return w1, w2


def _check_numbers(count: int) -> None:
    if count > _MOST_NUMBERS:
        raise ValueError("more numbers than a layer has")
