"""Weights of a frozen UNet in another dtype than it computes in: fp8, or fp16 beneath bf16.

Each weight of a linear or convolution layer is cast to the input's dtype when the layer runs, and
again in its backward pass, so that autograd keeps no cast copy. In fp8 a row (an output) has a
scale of its own, without which most weights of SDXL would be subnormal in e4m3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.utils._pytree import tree_map

from unziplora.method.branches import BranchPair
from unziplora.unet.changes import Changes, Forward

_FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FP8).max


@contextmanager
def cast_by_layer(
    unet: nn.Module, pairs: Mapping[nn.Module, BranchPair], *, fp8: bool
) -> Iterator[None]:
    """Weights are cast when a layer runs; afterwards each is what it was, to the bit.

    fp8: they lie in fp8 meanwhile; on a GPU the originals wait in the CPU's memory. Otherwise they
    stay where they are. Either way a UNet in fp16 is differentiated in bf16, which needs no loss
    scaling; without gradients it computes as ever.
    pairs: what stands in for the forward of some layers; there the pair's base is replaced.
    """
    compute = torch.bfloat16 if in_fp16(unet) else None
    kind = _InFp8 if fp8 else _Cast
    layers = [kind(layer, pairs.get(layer), compute) for layer in unet.modules() if _suits(layer)]
    with Changes(unet) as changes:
        if compute is not None:
            for norm in filter(_is_norm, unet.modules()):
                changes.replace_forward(norm, _norm_in_fp32(norm, norm.forward))
            changes.replace_forward(unet, _in_bf16(unet.forward))
        for layer in layers:
            layer.enter(changes)
        yield


def in_fp16(unet: nn.Module) -> bool:
    return next(unet.parameters()).dtype == torch.float16


def fp8_bytes(unet: nn.Module) -> int:
    """What the UNet's weights take in fp8; its modules may be on the meta device."""
    total = 0
    cast = {id(layer.weight): layer.weight for layer in unet.modules() if _suits(layer)}
    for parameter in unet.parameters():
        if id(parameter) in cast:
            total += parameter.numel() + parameter.shape[0] * parameter.element_size()
        else:
            total += parameter.numel() * parameter.element_size()
    return total


def _suits(layer: nn.Module) -> bool:
    """Linear and convolution layers of any host's class, unless fp8 already."""
    weight = layer._parameters.get("weight")
    return weight is not None and weight.ndim in (2, 4) and weight.element_size() > 1


def _is_norm(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1


class _Cast:
    """One layer whose weight is cast when it runs, and again in its backward pass.

    compute: the dtype to differentiate in, or None for the input's.
    """

    def __init__(
        self, layer: nn.Module, pair: BranchPair | None, compute: torch.dtype | None
    ) -> None:
        self._layer, self._pair, self._compute = layer, pair, compute

    def enter(self, changes: Changes) -> None:
        self._forward = self._pair.base if self._pair is not None else self._layer.forward
        if self._pair is not None:
            changes.replace(self._pair.__dict__, "base", self.forward)
        else:
            changes.replace_forward(self._layer, self.forward)

    def forward(self, x: Tensor) -> Tensor:
        if self._compute is not None and torch.is_grad_enabled():
            x = x.to(self._compute)
        result: Tensor = _Frozen.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def run(self, x: Tensor) -> Tensor:
        """The layer's own forward on the cast weight."""
        with _parameters_as(self._layer, x.dtype, weight=self.weight(x.dtype)):
            return self._forward(x)

    def weight(self, dtype: torch.dtype) -> Tensor:
        weight = self._layer._parameters["weight"]
        assert weight is not None
        return weight.to(dtype)

    def backward(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of an input of this shape."""
        weight = self.weight(grad.dtype)
        if weight.ndim == 2:
            return F.linear(grad, weight.T)
        layer: Any = self._layer
        result: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            shape, weight, grad, layer.stride, layer.padding, layer.dilation, layer.groups
        )
        return result


class _InFp8(_Cast):
    """One layer whose weight lies in fp8, with a scale for each row."""

    def enter(self, changes: Changes) -> None:
        weight = self._layer._parameters["weight"]
        assert weight is not None
        rows = weight.detach().flatten(1).float()
        scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LARGEST
        # in fp16 scales would be subnormal
        scale = scale.to(torch.bfloat16 if weight.dtype == torch.float16 else weight.dtype)
        codes = (rows / scale.float()).clamp(-_LARGEST, _LARGEST).to(_FP8)
        self._scale = scale.view(-1, *[1] * (weight.ndim - 1))
        send_away(weight, changes)
        stand_in = nn.Parameter(codes.view(weight.shape), requires_grad=False)
        changes.replace(self._layer._parameters, "weight", stand_in)
        super().enter(changes)

    def weight(self, dtype: torch.dtype) -> Tensor:
        if dtype == torch.float16:
            return self.weight(self._scale.dtype).to(dtype)
        return super().weight(dtype).mul_(self._scale.to(dtype))


@contextmanager
def _parameters_as(
    layer: nn.Module, dtype: torch.dtype, weight: Tensor | None = None
) -> Iterator[None]:
    """The layer's own parameters in another dtype, for one call."""
    kept = dict(layer._parameters)
    for name, parameter in kept.items():
        if parameter is not None:
            cast = weight if name == "weight" and weight is not None else parameter.to(dtype)
            layer._parameters[name] = nn.Parameter(cast, requires_grad=False)
    try:
        yield
    finally:
        layer._parameters.update(kept)


def _norm_in_fp32(norm: nn.Module, forward: Forward) -> Forward:
    """A norm's forward where it is differentiated: in fp32, as under autocast. Its few parameters
    are cast, for hosts' classes may cast the input themselves (sgm's GroupNorm32)."""

    def run(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            result: Tensor = forward(x)
            return result
        with _parameters_as(norm, torch.float32):
            result = forward(x.float())
        return result.to(x.dtype)

    return run


def _in_bf16(forward: Forward) -> Forward:
    """A UNet's forward on inputs in bf16 where it is differentiated."""

    def cast(value: Any) -> Any:
        fp16 = isinstance(value, Tensor) and value.dtype == torch.float16
        return value.to(torch.bfloat16) if fp16 else value

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        args, kwargs = tree_map(cast, (args, kwargs))
        # a host's own autocast, which is to fp16 (modules/devices.py:218 of A1111)
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.is_autocast_enabled()):
            return forward(*args, **kwargs)

    return run


class _Frozen(torch.autograd.Function):
    """A layer that is linear in x and does not learn: nothing of x need be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Cast) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.backward(grads[0], ctx.shape), None


def send_away(weight: Tensor, changes: Changes) -> None:
    """Frees a weight's memory on its device until the changes end.

    Its storage is emptied, not replaced: a host may hold other tensors of it (Forge does). On a
    CPU, and where several weights share a storage, it stays where it is.
    """
    storage = weight.untyped_storage()
    size = math.prod(weight.shape) * weight.element_size()
    if weight.device.type not in ("cuda", "xpu") or storage.nbytes() != size:
        return
    copy = weight.detach().to("cpu")

    def bring_back() -> None:
        if storage.nbytes() != size:
            storage.resize_(size)
        with torch.no_grad():
            weight.detach().copy_(copy)

    changes.then(bring_back)
    storage.resize_(0)
