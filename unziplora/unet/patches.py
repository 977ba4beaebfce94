"""What makes a borrowed UNet safe to differentiate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.unet.changes import Changes, Forward

# of Forge: trained on it, a LoRA is that of the fp16 model (its gradients' correlation 0.999998)
_PROVEN_GGUF = ("Q8_0",)
_TRANSFORMER_BLOCK = re.compile(r".*\.transformer_blocks\.\d+")


def refuse_quantised(unet: nn.Module) -> None:
    """Raises InvalidInput for weights of a kind that was not seen to train well.

    By type and dtype alone: whether a host made a weight under inference_mode says nothing of it.
    """
    for parameter in unet.parameters():
        if kind := _quantised(parameter):
            raise InvalidInput(
                f"This model is loaded with quantised weights ({kind}), which cannot be trained "
                "on. Load it in fp16, bf16 or fp8."
            )


def _quantised(weight: Tensor) -> str | None:
    """What a weight is quantised as, or None for one that can be trained on."""
    if hasattr(weight, "gguf_cls"):  # Forge's (backend/operations_gguf.py:20); None: unquantised
        kind = getattr(weight.gguf_cls, "__name__", None)
        return None if kind is None or kind in _PROVEN_GGUF else f"GGUF {kind}"
    if type(weight).__module__.partition(".")[0] != "torch":  # bitsandbytes, quanto, torchao, ...
        return type(weight).__name__
    if weight.is_quantized or not weight.is_floating_point():
        return str(weight.dtype).removeprefix("torch.")
    return None


@contextmanager
def frozen(unet: nn.Module) -> Iterator[None]:
    """Base weights gather no gradients meanwhile; each flag is put back as it was.

    Raises InvalidInput for quantised weights (`refuse_quantised`).
    """
    refuse_quantised(unet)
    with Changes(unet) as changes:
        for parameter in unet.parameters():
            changes.then(partial(setattr, parameter, "requires_grad", parameter.requires_grad))
            parameter.requires_grad_(False)
        yield


@contextmanager
def in_eval_mode(unet: nn.Module) -> Iterator[None]:
    """No module trains meanwhile (dropout); each one's mode is put back as it was."""
    with Changes(unet) as changes:
        for module in unet.modules():
            changes.replace(module.__dict__, "training", False)
        yield


@contextmanager
def normal_tensors(unet: nn.Module) -> Iterator[None]:
    """Parameters and buffers made under inference_mode cannot be saved for a backward pass (Forge
    makes all of them so, backend/loader.py:497): meanwhile normal tensors of the same storage stand
    in for them. Nothing is copied. Those of a GGUF stay: their layers compute with copies.

    Raises InvalidInput for quantised weights (`refuse_quantised`).
    """
    refuse_quantised(unet)
    with Changes(unet) as changes:
        for module in unet.modules():
            store: dict[str, Any]
            for store in (module._parameters, module._buffers):
                for name, tensor in list(store.items()):
                    if tensor is not None and tensor.is_inference() and not _is_gguf(tensor):
                        changes.replace(store, name, _normal(tensor))
        yield


def _is_gguf(tensor: Tensor) -> bool:
    return getattr(tensor, "gguf_cls", None) is not None


def _normal(tensor: Tensor) -> Tensor:
    """A tensor of the same storage that was not made under inference_mode."""
    normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(normal, requires_grad=False) if is_parameter else normal


@contextmanager
def out_of_place(
    unet: nn.Module, overwritten: Sequence[str] = ("norm1", "norm2")
) -> Iterator[None]:
    """Transformer blocks that add to their input in place (`x += n`, backend/nn/unet.py:240 of
    Forge) spoil what was saved for the backward pass: without checkpointing that is an error, with
    it gradients are silently wrong. Meanwhile each block works on a copy of its input, and those
    of its norms whose input is overwritten later read copies of it.
    """
    blocks = [m for name, m in unet.named_modules() if _TRANSFORMER_BLOCK.fullmatch(name)]
    norms = [norm for block in blocks for norm in map(block.get_submodule, overwritten)]

    def copied(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].clone(), *inputs[1:]) if torch.is_grad_enabled() else inputs

    with Changes(unet) as changes, wrapped(unet, blocks, _on_a_copy):
        for norm in norms:
            add_pre_hook(changes, norm, copied)
        yield


def add_pre_hook(changes: Changes, module: nn.Module, hook: Callable[..., Any]) -> None:
    """A forward pre-hook until the changes end."""
    changes.then(partial(_remove_hook, module, hook))
    module.register_forward_pre_hook(hook)


def _remove_hook(module: nn.Module, hook: Callable[..., Any]) -> None:
    hooks = module._forward_pre_hooks
    for key in [key for key, other in hooks.items() if other is hook]:
        del hooks[key]


@contextmanager
def wrapped(
    model: nn.Module, blocks: Sequence[nn.Module], wrap: Callable[[Forward], Forward]
) -> Iterator[None]:
    """The forward of some modules of a model is wrapped on the instance; what a host has put there
    comes back."""
    with Changes(model) as changes:
        for block in blocks:
            changes.replace_forward(block, wrap(block.forward))
        yield


def _on_a_copy(forward: Forward) -> Forward:
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return forward(x.clone() if torch.is_grad_enabled() else x, *args, **kwargs)

    return run
