"""Loss scaling, without which small gradients vanish where the base computes in fp16."""

from __future__ import annotations

from typing import Any

import torch


def loss_scaler(device: torch.device, *, enabled: bool) -> Any:
    """torch's dynamic loss scaler, which does nothing where it is not enabled."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled and device.type == "cuda")  # torch < 2.3
