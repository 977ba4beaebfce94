"""What holds for an adapter's tensors whatever its kind, and those of one that it has inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from unziplora.lora.algorithms import Adapter, Difference, Dora, LoHa, LoraLayer, WithBias


def on_device(adapter: Adapter, device: torch.device | str) -> Adapter:
    """The same with its tensors elsewhere; "meta" is enough to see whether it fits a weight."""
    moved: dict[str, Any] = {}
    for name, value in _values(adapter):
        if isinstance(value, Tensor):
            moved[name] = value.to(device)
        elif name == "inner":
            moved[name] = on_device(value, device)
    return replace(adapter, **moved)  # type: ignore[type-var]


def all_finite(adapter: Adapter) -> bool:
    """Whether each of its numbers is one."""
    return all(
        all_finite(value) if name == "inner" else bool(torch.as_tensor(value).isfinite().all())
        for name, value in _values(adapter)
        if name == "inner" or isinstance(value, (Tensor, float))
    )


def parameters(adapter: Adapter) -> int:
    """How many numbers it has."""
    return sum(
        parameters(value) if name == "inner" else value.numel()
        for name, value in _values(adapter)
        if name == "inner" or isinstance(value, Tensor)
    )


def inputs(adapter: Adapter) -> int | None:
    """The width of a linear layer's input, where the adapter's own tensors say it."""
    if isinstance(adapter, (Dora, WithBias)):
        return inputs(adapter.inner)
    factor = {LoraLayer: "down", LoHa: "w1_b", Difference: "diff"}.get(type(adapter))
    matrix = getattr(adapter, factor, None) if factor else None
    return matrix.shape[1] if isinstance(matrix, Tensor) and matrix.dim() > 1 else None


def _values(adapter: Adapter) -> Iterator[tuple[str, Any]]:
    """Of its fields, by name."""
    for field in fields(adapter):  # type: ignore[arg-type]
        yield field.name, getattr(adapter, field.name)
