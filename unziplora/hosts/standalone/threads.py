"""How many threads a model is computed with on a CPU."""

from __future__ import annotations

import os

import torch
from torch import nn

NARROW = 100_000_000  # parameters of a UNet; the smallest that is not a miniature has 780 million


def limit_threads(unet: nn.Module, device: torch.device, most: int | None = None) -> None:
    """At most so many threads, and one for a narrow model on a CPU. A second one saves a tenth of
    the miniature's time while nothing else runs; where another program keeps a core busy, the two
    wait for each other in every small operation, and a step takes 20 s instead of 0.15 s."""
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return
    if sum(parameter.numel() for parameter in unet.parameters()) < NARROW:
        torch.set_num_threads(1)
    elif most is not None:
        torch.set_num_threads(most)
