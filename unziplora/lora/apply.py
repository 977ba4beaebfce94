"""LoRAs on live networks: every layer computes with W + sum of weight * delta, by value.

    y = f(x; W + sum_i w_i delta_i)

A plain LoRA stays two thin products beside the layer's own; what other kinds add is computed again
at each call, so that no second copy of the weights is kept. Nothing of the network is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.lora.adapter_values import all_finite, on_device
from unziplora.lora.algorithms import Adapter, LoraLayer, WithBias
from unziplora.lora.key_layouts import Network, Target, res_blocks_of, target_of
from unziplora.lora.read import LoraFile, check_readable
from unziplora.unet.changes import Changes

_SAMPLES = 3  # layers whose effect is compared with the formula
_CLOSE = 1e-3  # of the effect


@dataclass(frozen=True)
class _Part:
    """What one file adds to one module."""

    adapter: Adapter
    weight: float


def targets_in(network: Network, module: nn.Module) -> dict[Target, nn.Module]:
    """The modules of a UNet (of either layout) or of a transformers text encoder that LoRAs can
    change."""
    named = {
        name: one
        for name, one in module.named_modules()
        if getattr(one, "weight", None) is not None
    }
    res_blocks = res_blocks_of(named)
    found = ((target_of(network, name, res_blocks), one) for name, one in named.items())
    return {target: one for target, one in found if target is not None}


def check_fits(file: LoraFile, modules: Mapping[Target, nn.Module]) -> None:
    """Whether every adapter of the networks that `modules` has belongs to one of its modules.

    Raises InvalidInput where a file is of another model, or has numbers that are none.
    """
    check_readable(file)
    networks = {target.network for target in modules}
    adapters = {t: a for t, a in file.adapters.items() if t.network in networks}
    fitting = sum(t in modules and _fits(a, modules[t]) for t, a in adapters.items())
    if fitting < len(adapters):
        raise InvalidInput(
            f"Only {fitting} of {len(adapters)} layers of {file.path.name} fit this model. "
            "Choose a LoRA of the same architecture."
        )
    _check_finite(file.path.name, adapters)


def _check_finite(name: str, adapters: Mapping[Target, Adapter]) -> None:
    for target, adapter in adapters.items():
        if not all_finite(adapter):
            raise InvalidInput(
                f"{name} has numbers that are infinite or NaN, in its layer {target.module}. "
                "Download it again, or choose an earlier save of it."
            )


def _fits(adapter: Adapter, module: nn.Module) -> bool:
    """Tried on tensors without data."""
    weight: Any = module.weight
    try:
        on_device(adapter, "meta").delta(torch.empty(weight.shape, device="meta"))
    except (ValueError, RuntimeError, IndexError, TypeError, ArithmeticError):
        return False
    bias = getattr(adapter, "bias", None)
    return bias is None or bias.shape == weight.shape[:1]


@contextmanager
def applied(
    network: nn.Module,
    modules: Mapping[Target, nn.Module],
    files: Sequence[tuple[LoraFile, float]],
) -> Iterator[None]:
    """The files, with their weights, on the modules of one network; afterwards it is as it was.

    Files must have passed `check_fits`. Raises UnZipLoRAError where a layer does not compute what
    it should, as on a base whose weights are quantised.
    """
    parts: dict[Target, list[_Part]] = {}
    for file, weight in files:
        for target, adapter in file.adapters.items():
            if weight and target in modules:
                parts.setdefault(target, []).append(_Part(adapter, weight))
    with Changes(network) as changes:
        before = {target: modules[target].forward for target in parts}
        for target, own in parts.items():
            changes.replace_forward(modules[target], _forward(modules[target], own))
        _verify(modules, parts, before)
        yield


def _forward(module: nn.Module, parts: Sequence[_Part]) -> Callable[[Tensor], Tensor]:
    weight: Any = module.weight
    placed = [_Part(on_device(part.adapter, weight.device), part.weight) for part in parts]
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return _norm_forward(module, placed)
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return _sum_forward(module.forward, [_addition(module, part) for part in placed])
    raise InvalidInput(
        f"This model has a layer of the kind {type(module).__name__}, which LoRAs cannot "
        "change here. Choose a checkpoint in fp16, bf16 or fp32."
    )


def _sum_forward(
    base: Callable[[Tensor], Tensor], additions: Sequence[Callable[[Tensor], Tensor]]
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y = base(x)
        for addition in additions:
            y = y + addition(x)
        return y

    return forward


def _addition(module: nn.Linear | nn.Conv2d, part: _Part) -> Callable[[Tensor], Tensor]:
    """What one file adds to a layer's output."""
    lora, dtype, bias = part.adapter, module.weight.dtype, _bias_sum([part])
    if bias is not None:
        bias = bias.to(dtype)
    if isinstance(lora, WithBias):
        lora = lora.inner
    if isinstance(lora, LoraLayer) and lora.up[0, 0].numel() == 1:
        down = lora.down.to(dtype)
        up = (part.weight * lora.scale * lora.up.float()).to(dtype)
        if isinstance(module, nn.Linear):
            down, up = down.flatten(1), up.flatten(1)
            return lambda x: F.linear(F.linear(x, down), up, bias)
        down, up = down.view(len(down), *module.weight.shape[1:]), up.view(*up.shape[:2], 1, 1)
        return lambda x: F.conv2d(_product(module, x, down, None), up, bias)

    def dense(x: Tensor) -> Tensor:
        change = part.weight * lora.delta(_reference(lora, module.weight))
        return _product(module, x, change.to(dtype), bias)

    return dense


def _product(
    module: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The layer's output with another weight."""
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _norm_forward(
    module: nn.LayerNorm | nn.GroupNorm, parts: Sequence[_Part]
) -> Callable[[Tensor], Tensor]:
    dtype, added = module.weight.dtype, _bias_sum(parts)
    weight = (module.weight.detach().float() + _sum(parts, module.weight)).to(dtype)
    bias = module.bias.detach()
    if added is not None:
        bias = (bias.float() + added).to(dtype)

    def forward(x: Tensor) -> Tensor:
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x, module.num_groups, weight, bias, module.eps)
        return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)

    return forward


def _sum(parts: Sequence[_Part], weight: Tensor) -> Tensor:
    """What all parts add to a weight, in fp32."""
    deltas = [p.weight * p.adapter.delta(_reference(p.adapter, weight)) for p in parts]
    return torch.stack(deltas).sum(dim=0)


def _reference(adapter: Adapter, weight: Tensor) -> Tensor:
    """The weight in fp32 or, where only its shape counts, a stand-in without memory."""
    if adapter.needs_weight:
        return weight.detach().float()
    return torch.zeros((), device=weight.device).expand(weight.shape)


def _bias_sum(parts: Sequence[_Part]) -> Tensor | None:
    """What all parts add to a bias, in fp32; None where none does."""
    found = [
        part.weight * bias.float()
        for part in parts
        if (bias := getattr(part.adapter, "bias", None)) is not None
    ]
    return torch.stack(found).sum(dim=0) if found else None


@torch.no_grad()
def _verify(
    modules: Mapping[Target, nn.Module],
    parts: Mapping[Target, Sequence[_Part]],
    before: Mapping[Target, Callable[[Tensor], Tensor]],
) -> None:
    """Of a sample of layers: output with and without the LoRAs differ by x (sum of deltas)."""
    known = [t for t in parts if isinstance(modules[t], (nn.Linear, nn.Conv2d))]
    for target in known[:: max(1, len(known) // _SAMPLES)][:_SAMPLES]:
        module: Any = modules[target]
        x = _noise(module)
        y, base = module(x).float(), before[target](x).float()
        own = [_Part(on_device(part.adapter, x.device), part.weight) for part in parts[target]]
        wanted = _product(module, x.float(), _sum(own, module.weight), _bias_sum(own))
        rounding = 8 * torch.finfo(x.dtype).eps * float(base.abs().max() + wanted.abs().max())
        error = float((y - base - wanted).abs().max())
        if not error <= _CLOSE * float(wanted.abs().max()) + rounding:
            raise UnZipLoRAError(
                f"The layer {target.module} does not compute what the LoRAs add to it. "
                "Restart the program; if it happens again, report it with the log."
            )


def _noise(module: nn.Linear | nn.Conv2d) -> Tensor:
    """An input for one layer."""
    inputs = module.weight.shape[1] * getattr(module, "groups", 1)
    shape = (2, inputs) if isinstance(module, nn.Linear) else (1, inputs, 8, 8)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.to(module.weight.device, module.weight.dtype)
