"""Where bfloat16 is worth it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it is emulated a convolution takes
    twenty times as long as in float32."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # another torch, or built without oneDNN
        return False


def fast(device: torch.device | str) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 on a GPU and on a CPU that has it; float32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cpu" and not cpu_has_bfloat16():
        return contextlib.nullcontext()
    return torch.autocast(kind, torch.bfloat16)
