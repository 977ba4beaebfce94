"""What the backward pass makes again is what it would have kept, to the bit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.simulate_memory import Live
from tests.torch_versions import counts_storages
from tests.unet.test_attach import TOGETHER, attach_to, contexts, predict
from unziplora.unet.patches import frozen
from unziplora.unet.recompute import recomputed, transformer_blocks

WAYS = [("cheap", 0), ("products", 0), ("blocks", 0), ("blocks", 3)]


def gradients(host: Any, attachment: Any) -> list[Tensor]:
    """Of A and B, and the importance of the columns, for the same input each time."""
    for _, parameter in attachment.named_parameters():
        parameter.grad = None
    for _, _, branch in attachment.branches():
        branch.step_score.zero_()
    predict(host, contexts(host)["combined"]).square().mean().backward()
    found = [p.grad for _, p in attachment.named_parameters() if p.grad is not None]
    return found + [branch.step_score.clone() for _, _, branch in attachment.branches()]


@pytest.fixture
def measured(host: Any) -> Any:
    """Branches on the host's UNet, in a measuring window."""
    attachment = attach_to(host.unet)
    attachment.mode.set_contexts(contexts(host))
    attachment.mode.use_pass(TOGETHER)
    attachment.mode.window = attachment.mode.measuring = True
    return attachment


@pytest.mark.parametrize(("what", "kept"), WAYS)
def test_gradients_and_importance_are_equal_to_the_bit(
    host: Any, measured: Any, what: Any, kept: int
) -> None:
    with frozen(host.unet):
        expected = gradients(host, measured)
        with recomputed(host.unet, what, kept):
            found = gradients(host, measured)
    assert len(found) == len(expected) == 4 * sum(1 for _ in measured.branches())
    for left, right in zip(expected, found, strict=True):
        assert left.any()
        assert torch.equal(left, right)


def alive_after_forward(host: Any, way: tuple[Any, int] | None) -> int:
    """Bytes of what a forward pass leaves for its backward pass."""
    with recomputed(host.unet, *way) if way else nullcontext(), Live() as live:
        loss = predict(host, contexts(host)["combined"]).square().mean()
    assert loss.requires_grad
    return live.bytes


@counts_storages
def test_each_keeps_less_than_the_one_before(host: Any, measured: Any) -> None:
    ways = [None, ("cheap", 0), ("products", 0), ("blocks", 3), ("blocks", 0)]
    with frozen(host.unet):
        kept = [alive_after_forward(host, way) for way in ways]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept)


def test_gradients_are_equal_under_the_hosts_autocast(host: Any, measured: Any) -> None:
    """The backward pass runs outside of it, on a GPU in another thread."""

    def found() -> list[Tensor]:
        for _, parameter in measured.named_parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            loss = predict(host, contexts(host)["combined"]).float().square().mean()
        loss.backward()
        return [p.grad for _, p in measured.named_parameters() if p.grad is not None]

    with frozen(host.unet):
        expected = found()
        for way in WAYS:
            with recomputed(host.unet, *way):  # type: ignore[arg-type]
                assert all(map(torch.equal, expected, found()))


def test_every_forward_is_put_back(host: Any) -> None:
    before = {name: dict(module.__dict__) for name, module in host.unet.named_modules()}
    for way in WAYS:
        with recomputed(host.unet, *way):  # type: ignore[arg-type]
            pass
    after = {name: dict(module.__dict__) for name, module in host.unet.named_modules()}
    assert before == after


def test_the_widest_blocks_are_kept_first(host: Any) -> None:
    found = transformer_blocks(host.unet)
    widths = [block.norm1.weight.shape[0] for block, _ in found]  # type: ignore[union-attr]
    assert widths == sorted(widths, reverse=True)
    assert sum(share for _, share in found) == pytest.approx(1)


class CastingNorm(nn.GroupNorm):
    """sgm's GroupNorm32: its input is cast inside."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.double(), self.bias.double()
        return nn.functional.group_norm(x.double(), 2, weight, bias, self.eps).to(x.dtype)


class Residual(nn.Module):
    def __init__(self, norm: type[nn.GroupNorm]) -> None:
        super().__init__()
        self.layers = nn.Sequential(norm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class Overwriting(Residual):
    """Changes the input of its norm in place, for which nothing of ours makes a copy here."""

    def forward(self, x: Tensor) -> Tensor:
        made = self.layers(x)
        x += made
        return x


def unet_of(block: nn.Module) -> nn.Module:
    """As sgm names its blocks."""
    unet = nn.Module()
    unet.input_blocks = nn.ModuleList([nn.ModuleList([block])])
    unet.forward = lambda x: unet.input_blocks[0][0](x.sin() * 1.0)  # type: ignore[index]
    return unet


@pytest.mark.parametrize("norm", [nn.GroupNorm, CastingNorm])
@pytest.mark.parametrize("what", ["cheap", "products", "blocks"])
def test_a_residual_block_has_the_gradient_that_it_has_alone(norm: Any, what: Any) -> None:
    unet, x = unet_of(Residual(norm)), torch.randn(1, 4, 6, 6, requires_grad=True)
    with frozen(unet):
        (expected,) = torch.autograd.grad(unet(x).square().sum(), x)
        with recomputed(unet, what):
            (found,) = torch.autograd.grad(unet(x).square().sum(), x)
    assert torch.equal(found, expected)


def test_what_was_changed_in_place_meanwhile_is_an_error_and_no_wrong_gradient() -> None:
    unet, x = unet_of(Overwriting(nn.GroupNorm)), torch.randn(1, 4, 6, 6, requires_grad=True)
    with frozen(unet), recomputed(unet, "cheap"):
        loss = unet(x).square().sum()
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()
