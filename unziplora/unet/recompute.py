"""What the backward pass makes again instead of keeping it, exactly and block by block.

cheap     what follows from a kept tensor without a product of matrices: the outputs of norms, of
          SiLU and of GELU. Each stays what autograd kept of it: its own input.
products  also the feed-forward's first product, with GEGLU the largest thing that a block keeps.
blocks    everything: of a block only its input is kept.

Gradients are those of a backward pass that keeps everything, to the bit on a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint

from unziplora.unet.changes import Changes, Forward, forward_of

Recompute = Literal["cheap", "products", "blocks"]
_TRANSFORMER_BLOCK = re.compile(r".*\.transformer_blocks\.\d+")  # both layouts
_BLOCK = re.compile(
    rf"{_TRANSFORMER_BLOCK.pattern}"
    r"|(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.resnets\.\d+"  # diffusers
    r"|(?:input_blocks|output_blocks)\.\d+\.0|middle_block\.[02]"  # sgm
)
_CASTING_NOTHING = (nn.LayerNorm.forward, nn.GroupNorm.forward, nn.SiLU.forward)
_Place = tuple[int, int, int, torch.dtype]


def transformer_blocks(unet: nn.Module) -> list[tuple[nn.Module, float]]:
    """Each with the share of all blocks' activations that it keeps, the widest first.

    Activations are tokens times width, and in SDXL's family a level of twice the width has a
    quarter of the tokens.
    """
    found = [m for name, m in unet.named_modules() if _TRANSFORMER_BLOCK.fullmatch(name)]
    widths = [block.norm1.weight.shape[0] for block in found]
    whole = sum(1 / width for width in widths)
    shares = [(block, 1 / width / whole) for block, width in zip(found, widths, strict=True)]
    return sorted(shares, key=lambda block: block[1])


@contextmanager
def recomputed(
    unet: nn.Module,
    what: Recompute,
    kept_blocks: int = 0,
    *,
    away: bool = False,
    cast: bool = False,
) -> Iterator[None]:
    """The UNet's backward pass makes this again; every forward is put back at the end.

    kept_blocks: of "blocks", how many transformer blocks are not made again as a whole but as
    "products" are: the widest first, which take longest for what they keep. away: their
    inputs wait in the computer's memory. cast: the weights are cast by layer
    (unet/weight_cast.py), so that no convolution keeps its input.
    """
    kept = {block for block, _ in transformer_blocks(unet)[:kept_blocks]}
    with Changes(unet) as changes:
        for name, block in unet.named_modules():
            if not _BLOCK.fullmatch(name):
                continue
            forward = block.forward
            if what != "blocks" or block in kept:
                _keep_less(changes, block, products=what != "cheap")
            elif _TRANSFORMER_BLOCK.fullmatch(name):
                _keep_less(changes, block, products=False)
                again = _made_again(forward, block.forward, away=away)
                changes.replace_forward(block, again)
            else:
                changes.replace_forward(block, _checkpointed(forward))
        for layer in unet.modules() if not cast else ():
            if isinstance(layer, nn.Conv2d) and _plain(layer):
                changes.replace_forward(layer, _without_input(layer))
        yield


def _made_again(forward: Forward, lean: Forward, *, away: bool) -> Forward:
    """A block of which only the input is kept. lean: its forward with less kept, which is what the
    backward pass runs.

    Not for residual blocks: their input goes elsewhere too, so that its gradient would be added up
    in another order.
    """
    again, checkpointed = _run_again(lean, away=away), _checkpointed(forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and _constant(args[1:], kwargs):
            return again(*args, **kwargs)
        return checkpointed(*args, **kwargs)

    return run


def _checkpointed(forward: Forward) -> Forward:
    """The same by torch.

    Non-reentrant: a host's own checkpointing differentiates with respect to registered parameters
    only, so that branches silently get no gradient (sgm), or is not implemented (Forge).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Nothing in a block draws random numbers (dropout is off), so no state need be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run


def _constant(*values: Any) -> bool:
    """Whether none of these needs a gradient."""
    leaves, _ = tree_flatten(values)
    return not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)


def _keep_less(changes: Changes, block: nn.Module, *, products: bool) -> None:
    recipes = _Recipes()
    for module in block.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.SiLU):
            changes.replace_forward(module, _noted(module, recipes))
        elif type(module).__name__ == "GEGLU":  # sgm's, diffusers' and Forge's
            forward = forward_of(module)
            changes.replace_forward(
                module, _run_again(forward) if products else _with_gelu_noted(forward, recipes)
            )
    changes.replace_forward(block, _within(recipes, block.forward))


@dataclass(frozen=True)
class _Recipe:
    """How a tensor is made again: make(source). version: of the source when it was noted."""

    make: Callable[[Tensor], Tensor]
    source: Tensor | _Recipe
    version: int
    shape: torch.Size


class _Recipes:
    """Which tensors of a block can be made again, while its forward runs.

    They are recognised by their storage, which their entry keeps alive, so that no other tensor
    can be taken for one of them.
    """

    def __init__(self) -> None:
        self._known: dict[_Place, tuple[Tensor, int, _Recipe]] = {}

    def note(self, result: Tensor, make: Callable[[Tensor], Tensor], source: Tensor) -> None:
        if result.is_contiguous():
            start = self._recipe_of(source) or source.detach()
            recipe = _Recipe(_as_now(make, result), start, source._version, result.shape)
            self._known[_place(result)] = (result.detach(), result._version, recipe)

    def pack(self, tensor: Tensor) -> _Recipe | tuple[Tensor, int]:
        """What autograd keeps of a tensor. Not itself: an output would hold the node that keeps
        it, and neither would ever be freed."""
        return self._recipe_of(tensor) or (tensor.detach(), tensor._version)

    def clear(self) -> None:
        self._known.clear()

    def _recipe_of(self, tensor: Tensor) -> _Recipe | None:
        if not tensor.is_contiguous():
            return None
        result, version, recipe = self._known.get(_place(tensor), (tensor, -1, None))
        if recipe is None or result._version != version:  # changed in place since
            return None
        if recipe.shape == tensor.shape:
            return recipe
        return _Recipe(recipe.make, recipe.source, recipe.version, tensor.shape)


def _unpack(kept: _Recipe | tuple[Tensor, int]) -> Tensor:
    """The tensor itself. Raises RuntimeError where it was changed since it was kept: with hooks,
    autograd leaves that check to them."""
    if isinstance(kept, tuple):
        return _unchanged(*kept)
    if isinstance(kept.source, _Recipe):
        source = _unpack(kept.source)
    else:
        source = _unchanged(kept.source, kept.version)
    # as it was made: norms of a base in fp16 run in fp32 only where gradients are on
    # (weight_cast.py); nothing is kept of this, for neither the source nor the base has any
    with torch.enable_grad():
        return kept.make(source).view(kept.shape).detach()


def _unchanged(tensor: Tensor, version: int) -> Tensor:
    if tensor._version != version:
        raise RuntimeError(
            "A tensor that the backward pass needs was changed in place. Disable other extensions "
            "that change the UNet, and report this with the run's log."
        )
    return tensor


def _place(tensor: Tensor) -> _Place:
    storage = tensor.untyped_storage()._cdata
    return storage, int(tensor.storage_offset()), tensor.numel(), tensor.dtype


def _within(recipes: _Recipes, forward: Forward) -> Forward:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        try:
            with saved_tensors_hooks(recipes.pack, _unpack):
                return forward(*args, **kwargs)
        finally:
            recipes.clear()

    return run


def _noted(module: nn.Module, recipes: _Recipes) -> Forward:
    """A norm or activation whose output is made again from its input.

    A class that casts inside (sgm's GroupNorm32) would keep its input in fp32 besides; it runs
    again as a whole.
    """
    forward, in_place = forward_of(module), bool(getattr(module, "inplace", False))
    casts = type(module).forward not in _CASTING_NOTHING
    run_once = _run_again(forward) if casts and not in_place else forward

    def run(x: Tensor) -> Tensor:
        result: Tensor = run_once(x)
        if torch.is_grad_enabled() and not in_place:
            recipes.note(result, forward, x)
        return result

    return run


def _with_gelu_noted(forward: Forward, recipes: _Recipes) -> Forward:
    """GEGLU, value * gelu(gate), whose second factor is made again from the gate."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        with _NoteGelu(recipes):
            return forward(*args, **kwargs)

    return run


class _NoteGelu(TorchFunctionMode):
    """The GELU is a function in every host, not a module."""

    def __init__(self, recipes: _Recipes) -> None:
        super().__init__()
        self._recipes = recipes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        result = func(*args, **options)
        if func is nn.functional.gelu and len(args) == 1:
            self._recipes.note(result, lambda gate: func(gate, **options), args[0])
        return result


def _plain(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _without_input(layer: nn.Conv2d) -> Forward:
    """A frozen convolution that does not keep its input, whose values no gradient needs."""
    forward = forward_of(layer)

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or not x.requires_grad or layer.weight.requires_grad:
            return forward(x, *args, **kwargs)
        return _FrozenConv.apply(x, forward, layer)  # type: ignore[no-untyped-call]

    return run


class _FrozenConv(torch.autograd.Function):
    """A convolution as a function of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Forward, layer: nn.Conv2d) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        result: Tensor = forward(x)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,), layer = grads, ctx.layer
        weight = layer.weight.to(grad)
        shapes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        gradient: Tensor = conv2d_input(ctx.shape, weight, grad, *shapes)  # type: ignore[no-untyped-call]
        return gradient, None, None


def _run_again(forward: Forward, *, away: bool = False) -> Forward:
    """A module of which only the first input is kept, where that may itself be made again. away:
    it is kept in the computer's memory."""

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(x, *args, **kwargs)
        started = torch.empty(0, requires_grad=True)
        function = lambda x: forward(x, *args, **kwargs)  # noqa: E731
        return _Again.apply(x, started, function, away)  # type: ignore[no-untyped-call]

    return run


class _Again(torch.autograd.Function):
    """A function of one tensor that runs again in the backward pass. Unlike torch's checkpoint, it
    keeps the tensor through `save_for_backward`, which a recipe can stand in for.

    started: needs a gradient, so that what the function has inside is differentiated also where
    the tensor needs none.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, started: Tensor, function: Callable[[Tensor], Tensor], away: bool
    ) -> Tensor:
        with torch.enable_grad():  # for what computes otherwise where nothing is differentiated
            result = function(x.detach().requires_grad_(x.requires_grad))
        if not result.requires_grad:
            ctx.mark_non_differentiable(result)
            return result
        ctx.function = _as_now(function, result)
        ctx.device, ctx.away = x.device, x.detach().to("cpu") if away else None
        ctx.save_for_backward(*([] if away else [x]))
        return result.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        x = ctx.saved_tensors[0] if ctx.away is None else ctx.away.to(ctx.device)
        x = x.detach().requires_grad_(ctx.needs_input_grad[0])
        with torch.enable_grad():
            result = ctx.function(x)
        torch.autograd.backward(result, grads[0])
        return x.grad, None, None, None


def _as_now(function: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
    """The function under today's autocast, which the thread of the backward pass does not know."""
    kind = like.device.type
    if kind not in ("cuda", "cpu", "xpu") or not _autocast(kind):
        return function
    dtype = _autocast_dtype(kind)

    def run(x: Tensor) -> Tensor:
        with torch.autocast(kind, dtype):
            return function(x)

    return run


def _autocast(kind: str) -> bool:
    if kind == "cpu" and hasattr(torch, "is_autocast_cpu_enabled"):
        return bool(torch.is_autocast_cpu_enabled())
    return bool(torch.is_autocast_enabled())


def _autocast_dtype(kind: str) -> torch.dtype:
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind)
    return torch.get_autocast_cpu_dtype() if kind == "cpu" else torch.get_autocast_gpu_dtype()
