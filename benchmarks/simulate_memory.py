"""How much memory a step takes, without the memory: the run's own code on tensors without data.

Every operation runs on torch's meta device, that is on shapes and dtypes alone, and `Live` below
counts the storages that are alive at any moment: weights, activations kept for the backward pass,
gradients, moments and temporaries. What a kernel allocates inside, the CUDA context and
fragmentation are not seen. Attention is the fused kind, as on a GPU. torch's FakeTensorMode gave
the same figures (within 0.02 % on KOALA-700M) and took longer.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from unziplora.host import SizeIds
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.method.methods import METHODS, table_for
from unziplora.testing.random_checkpoint import FULL, Widths, unet_of
from unziplora.training.inputs import TrainingInputs
from unziplora.training.memory_plans import PLANS
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer
from unziplora.unet.attach import attach

TOKENS = 77
_IN_PLACE = (
    "mul_", "add_", "sub_", "div_", "copy_", "zero_", "fill_", "sqrt_", "clamp_", "lerp_", "floor_",
    "addcmul_", "addcdiv_", "normal_", "uniform_", "random_", "masked_fill_", "bernoulli_",
)  # fmt: skip


@dataclass(frozen=True)
class Simulated:
    """One step, in bytes. held: base weights, A, B, mergers and moments, there all the time;
    peak: the most at any moment."""

    held: int
    peak: int


class Live(TorchDispatchMode):
    """Bytes of the storages alive, and their peak. A tensor's numbers, which a fake one has not,
    read as True, 1.0 and 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._shapes = _Shapes()

    def count(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
                self.added(tensor)
        self.peak = max(self.peak, self.bytes)

    def added(self, tensor: Tensor) -> None:
        """A storage is counted for the first time."""

    def _gone(self, nbytes: int) -> None:
        self.bytes -= nbytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 0
        if func is torch.ops.aten._to_copy.default and _to_cpu(kwargs or {}):
            return torch.ones(args[0].shape, dtype=(kwargs or {}).get("dtype") or args[0].dtype)
        result = self._shapes(func, args, kwargs or {})
        leaves, _ = tree_flatten(result)
        self.count(leaf for leaf in leaves if isinstance(leaf, Tensor))
        return result


class _Shapes:
    """Runs an operation on the meta device. What came of the same shapes before comes again without
    it: torch works most of them out in Python, and a step has tens of thousands of few kinds."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        kind = _kind(func)
        if kind == "other":
            return func(*args, **kwargs)
        key = (func, _key(args), _key(tuple(kwargs.items())))
        known = self._known.get(key)
        if known is not None:
            return args[0] if kind == "in place" else _made(known)
        result = func(*args, **kwargs)
        if (found := _described(result)) is not None:
            self._known[key] = found
        return result


def _described(result: Any) -> Any:
    """What `_made` makes the like of; None for what is no tensor without data."""
    if isinstance(result, Tensor) and result.device.type == "meta":
        return (result.shape, result.stride(), result.dtype)
    if isinstance(result, tuple) and result:
        parts = [_described(part) for part in result]
        return None if None in parts else parts
    return None


def _made(known: Any) -> Any:
    if isinstance(known, list):
        return tuple(map(_made, known))
    shape, stride, dtype = known
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


@cache
def _kind(func: Any) -> Literal["new", "in place", "other"]:
    """new: the result shares no storage with anything. in place: it is the first tensor, whose
    numbers alone change."""
    shared = [x for x in func._schema.arguments if x.alias_info is not None]
    if not shared and all(x.alias_info is None for x in func._schema.returns):
        return "new"
    return "in place" if func._schema.name.removeprefix("aten::") in _IN_PLACE else "other"


def _key(values: Any) -> Any:
    """What a result's shape can depend on."""
    if isinstance(values, Tensor):
        return (values.shape, values.stride(), values.dtype, values.device.type)
    if isinstance(values, (list, tuple)):
        return tuple(_key(value) for value in values)
    return (type(values), values)


def _to_cpu(options: dict[str, Any]) -> bool:
    return options.get("device") is not None and torch.device(options["device"]).type == "cpu"


@contextmanager
def without_data() -> Iterator[None]:
    """Tensors are made on the meta device, and what it lacks is stood in for."""
    flash_on_cpu = torch.Generator

    def _generator(device: Any = None) -> torch.Generator:
        return flash_on_cpu()

    def fused(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
        output: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
        return output

    with (
        torch.device("meta"),
        mock.patch.object(torch, "Generator", _generator),
        mock.patch.object(F, "scaled_dot_product_attention", fused),
    ):
        yield


class _Host(StandaloneHost):
    """The standalone host with a UNet that has no file."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype) -> None:
        self.unet, self.dtype = unet, dtype
        self.device = next(unet.parameters()).device
        self.prediction_type = "epsilon"
        self.alphas_cumprod = torch.linspace(0.999, 0.005, 1000)


def simulate(architecture: str, resolution: int, rank: int, plan: str) -> Simulated:
    """A measuring step in the middle of a run, which needs a little more than another: dense
    matrices of a layer are formed."""
    live = Live()
    with at_rest(live, architecture, resolution, rank, plan) as trainer:
        held = live.bytes
        with live:
            trainer.advance()
    return Simulated(held, live.peak)


def held_bytes(architecture: str, resolution: int, rank: int, plan: str) -> int:
    """What is there all the time: base weights, A, B, mergers and moments."""
    live = Live()
    with at_rest(live, architecture, resolution, rank, plan):
        return live.bytes


@contextmanager
def at_rest(
    live: Live, architecture: str, resolution: int, rank: int, plan: str, *, widths: Widths = FULL
) -> Iterator[Trainer]:
    """A trainer under its plan, what it holds counted."""
    with without_data():
        trainer = real_trainer(architecture, resolution, rank, plan, widths=widths)
        unet = trainer.host.unet
        with trainer.plan.on(unet, trainer.attachment):
            live.count([*unet.parameters(), *unet.buffers(), *trainer.tensors().values()])
            yield trainer


def real_trainer(
    architecture: str,
    resolution: int,
    rank: int,
    plan: str,
    *,
    widths: Widths = FULL,
    dtype: torch.dtype = torch.bfloat16,
    unet: nn.Module | None = None,
) -> Trainer:
    """A trainer whose optimizer has its moments; real, or within `without_data`. dtype: of the base
    model; unet: one of these widths and this dtype, or new random weights."""
    unet = _unet(architecture, widths, dtype) if unet is None else unet
    # of what starts at random a window may be one step long, so that the second is an ordinary one
    chosen = Settings("cat", "ink", rank=rank, resolution=resolution, window=1, init="random")
    settings = chosen.resolve()
    attachment = attach(
        unet,
        METHODS[settings.method],
        table_for(architecture),
        rank=rank,
        alpha=rank,
        init=settings.init,
        generator=torch.Generator(),
    )
    side = resolution // 8
    encoded = TrainingInputs(
        torch.randn(1, 4, side, side),
        torch.randn(3, TOKENS, sum(widths.text), dtype=dtype),
        torch.randn(3, widths.text[1], dtype=dtype),
        SizeIds((resolution, resolution), (0, 0), (resolution, resolution)),
    )
    trainer = Trainer(_Host(unet, dtype), settings, attachment, encoded, PLANS[plan])
    state = trainer.tensors()
    for name, parameter in attachment.named_parameters():
        if f"{name}:exp_avg" not in state:
            state[f"{name}:step"] = torch.zeros(())
            state[f"{name}:exp_avg"] = torch.zeros(parameter.shape)
            state[f"{name}:exp_avg_sq"] = torch.zeros(parameter.shape)
    trainer.restore(state, trainer.numbers())
    return trainer


def _unet(architecture: str, widths: Widths, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_of(architecture, widths).config(widths.text[1])).eval()
    for module in unet.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                drawn = torch.empty(parameter.shape, dtype=dtype)
                if drawn.device.type == "meta":
                    pass
                elif parameter.ndim > 1:
                    drawn.normal_(0, 0.02)
                else:
                    drawn.fill_(1.0 if name == "weight" else 0.0)
                module._parameters[name] = nn.Parameter(drawn, requires_grad=False)
    return unet


def plans_parser(description: str) -> argparse.ArgumentParser:
    """Which steps a benchmark of the plans simulates: architecture, resolution, rank, and of `only`
    the plans."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--architecture", default="sdxl")
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=list(PLANS), choices=PLANS)
    return parser
