"""Memory plans: what is traded for memory, as data."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from unziplora.unet.trainable import checkpointed

# Below this a step without checkpointing fits wherever the model itself does.
_SMALL_UNET = 200_000_000  # parameters


@dataclass(frozen=True)
class Plan:
    """checkpointing: blocks are recomputed in the backward pass, which takes about half as long
    again and far less memory."""

    name: str
    checkpointing: bool

    def on(self, unet: nn.Module) -> AbstractContextManager[None]:
        """The UNet under this plan; everything is put back at the end."""
        return checkpointed(unet) if self.checkpointing else nullcontext()


PLANS = {plan.name: plan for plan in (Plan("full", False), Plan("checkpoint", True))}


def choose(name: str, unet: nn.Module, device: torch.device) -> Plan:
    """The plan of that name; "auto" takes `full` for a small model and on a GPU with 20 GB free,
    else `checkpoint`."""
    if name != "auto":
        return PLANS[name]
    small = sum(parameter.numel() for parameter in unet.parameters()) < _SMALL_UNET
    roomy = device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > 20e9
    return PLANS["full" if small or roomy else "checkpoint"]
