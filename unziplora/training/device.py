"""What a device says of itself."""

from __future__ import annotations

import torch


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
