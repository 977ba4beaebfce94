"""What a device says of itself."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether tensors of both lie in one memory: "cuda" is "cuda:0", or whichever is current."""
    return one.type == other.type and _number(one) == _number(other)


def bytes_on(device: torch.device, tensors: Iterable[Tensor]) -> int:
    """Of those of the tensors that lie on the device."""
    return sum(t.numel() * t.element_size() for t in tensors if same_device(t.device, device))


def _number(device: torch.device) -> int:
    if device.index is not None:
        return int(device.index)
    started = device.type == "cuda" and torch.cuda.is_initialized()
    return torch.cuda.current_device() if started else 0


def peak_memory(device: torch.device) -> float | None:
    """Peak so far in GB (1e9 bytes): of the GPU, or of this process where there is none; None where
    that cannot be measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
