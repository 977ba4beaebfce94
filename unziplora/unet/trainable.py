"""What makes a borrowed UNet safe to differentiate, and to checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_CHECKPOINTED = re.compile(
    r".*\.transformer_blocks\.\d+"  # both layouts
    r"|(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.resnets\.\d+"  # diffusers
    r"|(?:input_blocks|output_blocks)\.\d+\.0|middle_block\.[02]"  # sgm
)


@contextmanager
def frozen(unet: nn.Module) -> Iterator[None]:
    """Base weights gather no gradients meanwhile; each flag is put back as it was."""
    flags = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
    try:
        unet.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def checkpointed(unet: nn.Module) -> Iterator[None]:
    """Each transformer block and residual block is recomputed in the backward pass.

    Non-reentrant: a host's own checkpointing differentiates with respect to registered parameters
    only, so that branches silently get no gradient (sgm), or is not implemented (Forge).
    Gradients equal those without it to the bit on a CPU.
    """
    blocks = [
        module
        for name, module in unet.named_modules()
        if _CHECKPOINTED.fullmatch(name) is not None and "forward" not in module.__dict__
    ]
    try:
        for block in blocks:
            block.forward = _recomputed(block.forward)  # type: ignore[method-assign]
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Nothing in a block draws random numbers (dropout is off), so no state need be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
