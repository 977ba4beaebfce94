"""A frozen UNet's weights in fp8 while it is lent: half the bytes of bf16.

Each weight of a linear or convolution layer is cast to the input's dtype when the layer runs, and
again in its backward pass, so that autograd keeps no cast copy. A row (an output) has a scale of
its own, without which most weights of SDXL would be subnormal in e4m3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from unziplora.method.branches import BranchPair

_FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FP8).max


@contextmanager
def stored_in_fp8(unet: nn.Module, pairs: Mapping[nn.Module, BranchPair]) -> Iterator[None]:
    """The weights lie in fp8 meanwhile; afterwards each is what it was, to the bit.

    pairs: what stands in for the forward of some layers; there the pair's base is replaced. On a
    GPU the originals wait in the CPU's memory.
    """
    stored = [_Stored(layer, pairs.get(layer)) for layer in unet.modules() if _suits(layer)]
    try:
        for layer in stored:
            layer.enter()
        yield
    finally:
        for layer in stored:
            layer.leave()


def fp8_bytes(unet: nn.Module) -> int:
    """What the UNet's weights take meanwhile; its modules may be on the meta device."""
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


class _Stored:
    """One layer's weight in fp8, and the layer's forward and backward with it."""

    def __init__(self, layer: nn.Module, pair: BranchPair | None) -> None:
        self._layer, self._pair = layer, pair
        self._codes: nn.Parameter
        self._scale: Tensor

    def enter(self) -> None:
        layer, pair = self._layer, self._pair
        weight = layer._parameters["weight"]
        assert weight is not None
        self._original = weight
        rows = weight.detach().flatten(1)
        scale = rows.abs().amax(dim=1).float().clamp(min=1e-12) / _LARGEST
        codes = (rows / scale.to(rows.dtype)[:, None]).clamp(-_LARGEST, _LARGEST).to(_FP8)
        self._codes = nn.Parameter(codes.view(weight.shape), requires_grad=False)
        self._scale = scale.to(rows.dtype).view(-1, *[1] * (weight.ndim - 1))
        self._away = _sent_away(weight)
        layer._parameters["weight"] = self._codes
        self._earlier = layer.__dict__.get("forward")
        self._forward = pair.base if pair is not None else layer.forward
        if pair is not None:
            pair.base = self.forward
        else:
            layer.forward = self.forward  # type: ignore[method-assign]

    def leave(self) -> None:
        if not hasattr(self, "_forward"):  # `enter` failed, or was not reached
            return
        layer, pair = self._layer, self._pair
        if pair is not None:
            pair.base = self._forward
        else:
            layer.__dict__.pop("forward", None)
            if self._earlier is not None:
                layer.__dict__["forward"] = self._earlier
        self._away()
        layer._parameters["weight"] = self._original

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Frozen.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def run(self, x: Tensor) -> Tensor:
        """The layer's own forward on the cast weight."""
        parameters = self._layer._parameters
        parameters["weight"] = nn.Parameter(self.weight(x.dtype), requires_grad=False)
        try:
            result: Tensor = self._forward(x)
            return result
        finally:
            parameters["weight"] = self._codes

    def weight(self, dtype: torch.dtype) -> Tensor:
        return self._codes.to(dtype).mul_(self._scale.to(dtype))

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


class _Frozen(torch.autograd.Function):
    """A layer that is linear in x and does not learn: nothing of x need be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Stored) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.backward(grads[0], ctx.shape), None


def _sent_away(weight: Tensor) -> Callable[[], None]:
    """Frees a weight's memory on its device, and returns what brings it back.

    Its storage is emptied, not replaced: a host may hold other tensors of it (Forge does). On a
    CPU, and where several weights share a storage, it stays where it is.
    """
    storage = weight.untyped_storage()
    size = math.prod(weight.shape) * weight.element_size()
    if weight.device.type not in ("cuda", "xpu") or storage.nbytes() != size:
        return lambda: None
    copy = weight.detach().to("cpu")

    def bring_back() -> None:
        storage.resize_(size)
        with torch.no_grad():
            weight.detach().copy_(copy)

    storage.resize_(0)
    return bring_back
