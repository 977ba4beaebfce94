"""What Forge's UNet does that breaks a backward pass, one trait at a time, on a small stand-in.

Lines are those of Forge dfdcbab6. The real Forge is needed to see that these are all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.unet.patches import frozen, normal_tensors, out_of_place
from unziplora.unet.recompute import recomputed

WIDTH = 8


class Linear(nn.Module):
    """No nn.Linear (backend/operations.py:125); weights of another dtype are cast for each call
    where manual cast is on (backend/operations.py:151)."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter((torch.randn(WIDTH, WIDTH) / WIDTH**0.5).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Block(nn.Module):
    """Adds in place (backend/nn/unet.py:240 and 272)."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.attn1, self.attn2, self.ff = (Linear(dtype) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm1(x)
        n = self.attn1(n)
        x += n
        n = self.norm2(x)
        n = self.attn2(n)
        x += n
        x_skip = x
        x = self.ff(torch.tanh(self.norm3(x)))
        x += x_skip
        return x


class ErsatzBlock(Block):
    """ersatzForge's adds to the input of its third norm in place as well (its
    backend/nn/unet.py:290)."""

    def forward(self, x: Tensor) -> Tensor:
        x.add_(self.attn1(self.norm1(x)))
        x.add_(self.attn2(self.norm2(x)))
        x.add_(self.ff(torch.tanh(self.norm3(x))))
        return x


class UNet(nn.Module):
    def __init__(self, dtype: torch.dtype, block: type[Block] = Block) -> None:
        super().__init__()
        self.first = nn.Module()
        self.first.transformer_blocks = nn.ModuleList([block(dtype), block(dtype)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(x)  # saves nothing of its output
        for block in self.first.transformer_blocks:
            x = block(x)
        return x


@pytest.fixture(params=[torch.float64, torch.float16, torch.float8_e4m3fn], ids=str)
def unet(request: pytest.FixtureRequest) -> UNet:
    """Every tensor is made under inference_mode (backend/loader.py:497)."""
    torch.manual_seed(0)
    with torch.inference_mode():
        made = UNet(request.param)
        for norm in (m for m in made.modules() if isinstance(m, nn.LayerNorm)):
            norm.double()
    return made


@contextmanager
def trainable(unet: UNet, *, again: bool) -> Iterator[list[nn.Parameter]]:
    """As the host does it; with a branch beside each linear layer."""
    branches = []
    with ExitStack() as stack:
        for way in (normal_tensors, frozen, out_of_place):
            stack.enter_context(way(unet))
        for layer in (m for m in unet.modules() if isinstance(m, Linear)):
            branch = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.float64) * 0.1)
            branches.append(branch)
            base = layer.forward
            layer.forward = _beside(base, branch)  # type: ignore[method-assign]
            stack.callback(layer.__dict__.pop, "forward")
        if again:
            stack.enter_context(recomputed(unet, "blocks"))
        yield branches


def _beside(base: Any, branch: nn.Parameter) -> Any:
    return lambda x: base(x) + x @ branch


def gradients(unet: UNet, *, again: bool) -> list[Tensor]:
    torch.manual_seed(1)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    with trainable(unet, again=again) as branches:
        unet(x).square().sum().backward()
        return [branch.grad.clone() for branch in branches]  # type: ignore[union-attr]


def test_gradients_are_those_of_finite_differences(unet: UNet) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    with trainable(unet, again=False) as branches:
        unet(x).square().sum().backward()
        for branch in branches:
            assert branch.grad is not None
            for place in ((0, 0), (3, 5)):
                step = 1e-5
                losses = []
                for sign in (1, -1):
                    with torch.no_grad():
                        branch[place] += sign * step
                        losses.append(float(unet(x).square().sum()))
                        branch[place] -= sign * step
                expected = (losses[0] - losses[1]) / (2 * step)
                assert float(branch.grad[place]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_checkpointing_gives_the_same_gradients_to_the_bit(unet: UNet) -> None:
    plain, again = gradients(unet, again=False), gradients(unet, again=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_without_the_copies_it_fails_or_is_wrong(unet: UNet) -> None:
    """The stand-in has the trait: otherwise the tests above would prove nothing."""
    right = gradients(unet, again=True)
    torch.manual_seed(1)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    with normal_tensors(unet), frozen(unet):
        branch = nn.Parameter(torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
        layer = unet.first.transformer_blocks[0].attn1  # type: ignore[index, union-attr]
        layer.forward = _beside(layer.forward, branch)  # type: ignore[method-assign, union-attr]
        try:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                unet(x).square().sum().backward()
        finally:
            layer.__dict__.pop("forward")  # type: ignore[union-attr]
    assert right


def test_blocks_that_overwrite_the_input_of_the_third_norm_need_its_copy_too() -> None:
    torch.manual_seed(0)
    unet = UNet(torch.float64, ErsatzBlock).double()
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(_out_of_place(unet, x).square().sum(), x)
    with frozen(unet), out_of_place(unet, ("norm1", "norm2", "norm3")), recomputed(unet, "blocks"):
        (found,) = torch.autograd.grad(unet(x).square().sum(), x)
    assert found.equal(expected)
    in_place = pytest.raises(RuntimeError, match="modified by an inplace operation")
    with frozen(unet), out_of_place(unet, ("norm1", "norm2")), in_place:
        torch.autograd.grad(unet(x).square().sum(), x)


def _out_of_place(unet: UNet, x: Tensor) -> Tensor:
    x = torch.sin(x)
    for block in unet.first.transformer_blocks:  # type: ignore[union-attr]
        x = x + block.attn1(block.norm1(x))
        x = x + block.attn2(block.norm2(x))
        x = x + block.ff(torch.tanh(block.norm3(x)))
    return x


def test_without_normal_tensors_nothing_can_be_trained(unet: UNet) -> None:
    branch = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"[Ii]nference tensors"):
        unet(torch.randn(1, 1, WIDTH, dtype=torch.float64) * branch).sum().backward()


def test_afterwards_every_tensor_is_the_one_that_was_there(unet: UNet) -> None:
    before = {name: (p, p.data_ptr(), p.requires_grad) for name, p in unet.named_parameters()}
    gradients(unet, again=True)
    for name, parameter in unet.named_parameters():
        was, address, flag = before[name]
        assert parameter is was
        assert (parameter.data_ptr(), parameter.requires_grad) == (address, flag)
        assert parameter.is_inference()
    assert not any("forward" in module.__dict__ for module in unet.modules())
    with torch.inference_mode():  # and it still generates
        assert unet(torch.zeros(1, 1, WIDTH, dtype=torch.float64)).isfinite().all()


def test_a_merged_lora_leaves_inference_tensors_among_normal_ones() -> None:
    """As in reForge and forge-classic, which merge while they generate."""
    torch.manual_seed(0)
    unet = UNet(torch.float64).double()
    layer = unet.first.transformer_blocks[1].attn2  # type: ignore[index, union-attr]
    with torch.inference_mode():
        layer._parameters["weight"] = nn.Parameter(layer.weight.clone())  # type: ignore[union-attr]
    before = list(unet.parameters())
    assert [p.is_inference() for p in before].count(True) == 1
    plain, again = gradients(unet, again=False), gradients(unet, again=True)
    assert all(a.abs().sum() > 0 and a.equal(b) for a, b in zip(plain, again, strict=True))
    assert all(a is b for a, b in zip(before, unet.parameters(), strict=True))


class Packed(nn.Parameter):
    """As NF4's (bitsandbytes)."""


class ParameterGGUF(nn.Parameter):
    """As Forge's (backend/operations_gguf.py:20)."""

    gguf_cls: Any = None


def with_weight(weight: nn.Parameter) -> UNet:
    unet = UNet(torch.float32)
    layer = unet.first.transformer_blocks[1].ff  # type: ignore[index, union-attr]
    layer._parameters["weight"] = weight  # type: ignore[union-attr]
    return unet


def gguf(quantisation: str | None) -> ParameterGGUF:
    weight = ParameterGGUF(torch.ones(WIDTH, WIDTH), requires_grad=False)
    weight.gguf_cls = type(quantisation, (), {}) if quantisation else None
    return weight


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (Packed(torch.ones(WIDTH, WIDTH)), "Packed"),
        (nn.Parameter(torch.ones(4, 4, dtype=torch.uint8), requires_grad=False), "uint8"),
        (gguf("Q4_K"), "Q4_K"),
    ],
)
@pytest.mark.parametrize("inference", [True, False])
def test_quantised_weights_are_refused_and_nothing_is_changed(
    weight: nn.Parameter, named: str, inference: bool
) -> None:
    """By their kind, also where they were moved and are no inference tensors any more."""
    with torch.inference_mode(inference):
        unet = with_weight(weight)
    before = list(unet.parameters())
    with pytest.raises(InvalidInput, match=f"quantised weights .*{named}"), normal_tensors(unet):
        pass
    assert all(a is b for a, b in zip(before, unet.parameters(), strict=True))


@pytest.mark.parametrize("quantisation", ["Q8_0", None])
def test_a_gguf_that_is_proven_is_left_as_it_is(quantisation: str | None) -> None:
    weight = gguf(quantisation)
    unet = with_weight(weight)
    with normal_tensors(unet):
        assert any(parameter is weight for parameter in unet.parameters())
