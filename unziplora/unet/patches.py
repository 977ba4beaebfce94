"""What makes a borrowed UNet safe to differentiate, and to checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unziplora.errors import InvalidInput

_TRANSFORMER_BLOCK = re.compile(r".*\.transformer_blocks\.\d+")
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
def normal_tensors(unet: nn.Module) -> Iterator[None]:
    """Parameters and buffers made under inference_mode cannot be saved for a backward pass (Forge
    makes all of them so, backend/loader.py:497): meanwhile normal tensors of the same storage stand
    in for them. Nothing is copied.

    Raises InvalidInput for a quantised weight, which is a class of its own.
    """
    kept: list[tuple[dict[str, Any], str, Tensor]] = []
    store: dict[str, Any]
    try:
        for module in unet.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is None or not tensor.is_inference():
                        continue
                    if type(tensor) not in (nn.Parameter, Tensor):
                        raise InvalidInput(
                            f"This model is loaded with quantised weights ({type(tensor).__name__})"
                            ", which cannot be trained on. Load it in fp16, bf16 or fp8."
                        )
                    kept.append((store, name, tensor))
        for store, name, tensor in kept:
            normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
            )
            is_parameter = isinstance(tensor, nn.Parameter)
            store[name] = nn.Parameter(normal, requires_grad=False) if is_parameter else normal
        yield
    finally:
        for store, name, tensor in kept:
            store[name] = tensor


@contextmanager
def out_of_place(unet: nn.Module) -> Iterator[None]:
    """Transformer blocks that add to their input in place (`x += n`, backend/nn/unet.py:240 of
    Forge) spoil what was saved for the backward pass: without checkpointing that is an error, with
    it gradients are silently wrong. Meanwhile each block works on a copy of its input, and its
    norms read copies of what is added to later.
    """
    blocks = [m for name, m in unet.named_modules() if _TRANSFORMER_BLOCK.fullmatch(name)]
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)]

    def copied(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0].clone(), *given[1:]) if torch.is_grad_enabled() else given

    hooks = [norm.register_forward_pre_hook(copied) for norm in norms]
    try:
        with wrapped(blocks, _on_a_copy):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def checkpointed(unet: nn.Module) -> Iterator[None]:
    """Each transformer block and residual block is recomputed in the backward pass.

    Non-reentrant: a host's own checkpointing differentiates with respect to registered parameters
    only, so that branches silently get no gradient (sgm), or is not implemented (Forge).
    Gradients equal those without it to the bit on a CPU.
    """
    blocks = [m for name, m in unet.named_modules() if _CHECKPOINTED.fullmatch(name)]
    with wrapped(blocks, _recomputed):
        yield


Forward = Callable[..., Any]


@contextmanager
def wrapped(blocks: Sequence[nn.Module], wrap: Callable[[Forward], Forward]) -> Iterator[None]:
    """The blocks' forward is wrapped on the instance; what a host has put there comes back."""
    earlier = {block: block.__dict__.get("forward") for block in blocks}
    try:
        for block in blocks:
            block.forward = wrap(block.forward)  # type: ignore[method-assign]
        yield
    finally:
        for block, forward in earlier.items():
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.__dict__["forward"] = forward


def _recomputed(forward: Forward) -> Forward:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Nothing in a block draws random numbers (dropout is off), so no state need be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run


def _on_a_copy(forward: Forward) -> Forward:
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return forward(x.clone() if torch.is_grad_enabled() else x, *args, **kwargs)

    return run
