"""Weights in fp8 and fp16, cast layer by layer while a run lasts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unziplora.unet.weight_cast import cast_by_layer, fp8_bytes


def near_fp8(weight: Tensor) -> Tensor:
    """The numbers that fp8 with a scale for each row can hold, nearest to these."""
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / 448
    return ((rows / scale).to(torch.float8_e4m3fn).float() * scale).view_as(weight)


def test_a_base_in_fp8_comes_back_to_the_bit_whatever_happens(host: Any) -> None:
    before = {name: p.detach().clone() for name, p in host.unet.named_parameters()}
    objects = {name: id(p) for name, p in host.unet.named_parameters()}

    def interrupted() -> None:
        with cast_by_layer(host.unet, {}, fp8=True):
            assert host.unet.mid_block.attentions[0].proj_in.weight.element_size() == 1
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    for name, parameter in host.unet.named_parameters():
        assert id(parameter) == objects[name]
        assert torch.equal(parameter, before[name])
    assert not any("forward" in module.__dict__ for module in host.unet.modules())


@pytest.mark.parametrize("layer", [nn.Linear(12, 20), nn.Conv2d(6, 10, 3, stride=2, padding=1)])
def test_a_layer_in_fp8_is_the_layer_with_rounded_weights(layer: Any) -> None:
    layer.requires_grad_(False)
    x = torch.randn(2, 6, 8, 12, generator=torch.manual_seed(0), requires_grad=True)
    weight = layer.weight.detach().clone()
    saved: list[Tensor] = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with cast_by_layer(nn.ModuleList([layer]), {}, fp8=True), keep:
        stored = layer.weight
        y = layer(x)
        y.square().sum().backward()
    assert stored.element_size() == 1
    assert [t.dtype for t in saved] == [torch.float32]  # what square() keeps; no weight, no x
    got, x.grad = x.grad, None

    near = near_fp8(weight)
    layer.weight = nn.Parameter(near, requires_grad=False)
    expected = layer(x)
    expected.square().sum().backward()
    layer.weight = nn.Parameter(weight)
    assert torch.allclose(y, expected, atol=1e-5)
    assert torch.allclose(got, x.grad, atol=1e-4)
    assert (near - weight).abs().max() <= 0.0625 * weight.abs().max()


def test_fp8_bytes_are_what_the_weights_take(host: Any) -> None:
    unet = host.unet.to(torch.bfloat16)
    foretold = fp8_bytes(unet)
    with cast_by_layer(unet, {}, fp8=True):
        codes = sum(p.numel() * p.element_size() for p in unet.parameters())
    assert codes < foretold < 1.15 * codes  # the rest are scales, many in so narrow a model


def test_a_layer_in_fp16_keeps_no_copy_for_its_backward_pass() -> None:
    layer = nn.Linear(12, 20).half().requires_grad_(False)
    x = torch.randn(4, 12, generator=torch.manual_seed(0), requires_grad=True)
    saved: list[Tensor] = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with cast_by_layer(nn.ModuleList([layer]), {}, fp8=False), keep:
        y = layer(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert [t.dtype for t in saved] == [torch.float32]  # what square() keeps
    got, x.grad = x.grad, None
    layer.bfloat16()(x.bfloat16()).float().square().sum().backward()
    assert torch.equal(got, x.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_fp8_frees_the_weights_memory_and_brings_it_back() -> None:
    layer = nn.Linear(4096, 4096, dtype=torch.bfloat16, device="cuda").requires_grad_(False)
    before, other = layer.weight.clone().cpu(), layer.weight.detach()
    allocated = torch.cuda.memory_allocated()
    with cast_by_layer(nn.ModuleList([layer]), {}, fp8=True):
        assert torch.cuda.memory_allocated() < allocated - 0.9 * 4096**2
        assert layer(torch.ones(1, 4096, dtype=torch.bfloat16, device="cuda")).isfinite().all()
    assert torch.equal(layer.weight.cpu(), before)
    assert torch.equal(other.cpu(), before)  # the storage is the same
