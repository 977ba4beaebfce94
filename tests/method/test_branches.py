"""The factored pair against the dense formula of eq. 4, in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unziplora.method.branches import Branch, BranchPair
from unziplora.method.forward_mode import ForwardMode, Pass

IN, OUT, RANK = 10, 12, 3
TOGETHER = Pass("combined", {"content": "content", "style": "style"})


def make_pair(*, reads_text: bool, limited: bool = True) -> tuple[BranchPair, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(IN, OUT, dtype=torch.float64).requires_grad_(False)
    branches: Any = {}
    for name in ("content", "style"):
        branch = Branch(IN, OUT, RANK, 6.0, limited=limited, device=torch.device("cpu"))
        branch.initialise("random", generator)
        for field in ("down", "up", "merger"):
            parameter = getattr(branch, field)
            setattr(branch, field, nn.Parameter(parameter.detach().double()))
        with torch.no_grad():
            branch.merger.copy_(torch.rand(OUT, dtype=torch.float64))
        branch.mask = torch.rand(OUT) > 0.5
        branch.score = branch.score.double()
        branch.step_score = branch.step_score.double()
        branches[name] = branch
    return BranchPair(linear.forward, branches, ForwardMode(), reads_text=reads_text), linear


def dense(branch: Branch, x: Tensor) -> Tensor:
    """delta_b(x) of eq. 4 with the full (out, in) matrix."""
    delta = branch.alpha / branch.rank * (branch.up @ branch.down)
    mask = branch.mask if branch.limited else torch.ones_like(branch.mask)
    return x @ ((mask * branch.merger)[:, None] * delta).T


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("reads_text", [True, False])
def test_forward_and_gradients_equal_the_dense_formula(reads_text: bool, limited: bool) -> None:
    pair, linear = make_pair(reads_text=reads_text, limited=limited)
    contexts: Any = {p: torch.randn(1, 5, IN).double() for p in ("combined", "content", "style")}
    pair.mode.set_contexts(contexts)
    pair.mode.use_pass(TOGETHER)
    x = contexts["combined"] if reads_text else torch.randn(2, 5, IN).double()
    inputs = contexts if reads_text else dict.fromkeys(contexts, x)
    content, style = pair.branches["content"], pair.branches["style"]

    factored = pair.forward(x)
    expected = linear(inputs["combined"]) + dense(content, inputs["content"])
    expected = expected + dense(style, inputs["style"])

    assert torch.allclose(factored, expected, atol=1e-10, rtol=0)
    parameters = [p for b in (content, style) for p in (b.down, b.up, b.merger)]
    weight = torch.randn_like(expected)
    got = torch.autograd.grad((factored * weight).sum(), parameters)
    wanted = torch.autograd.grad((expected * weight).sum(), parameters)
    for g, w in zip(got, wanted, strict=True):
        assert torch.allclose(g, w, atol=1e-10, rtol=0)


def test_gradients_equal_finite_differences() -> None:
    pair, _ = make_pair(reads_text=False)
    pair.mode.use_pass(TOGETHER)
    x = torch.randn(1, 4, IN).double()
    content = pair.branches["content"]

    def output(down: Tensor, up: Tensor, merger: Tensor) -> Tensor:
        content.down, content.up, content.merger = down, up, merger  # type: ignore[assignment]
        return pair.forward(x)

    start = (content.down, content.up, content.merger)
    assert torch.autograd.gradcheck(output, start)


def test_plain_mode_is_what_a_loaded_lora_does_at_its_weight() -> None:
    pair, linear = make_pair(reads_text=True)
    x = torch.randn(2, 7, IN).double()
    for fold_mergers in (True, False):
        pair.mode.fold_mergers = fold_mergers
        pair.mode.use_weights({"content": 0.7, "style": -0.4})
        expected = linear(x)
        for name, weight in pair.mode.weights.items():
            branch = pair.branches[name]
            up = branch.folded_up(fold_mergers=fold_mergers)
            expected = expected + weight * branch.scale * (x @ branch.down.T @ up.T)
        assert torch.allclose(pair.forward(x), expected, atol=1e-10, rtol=0)


def test_plain_mode_with_weight_zero_is_the_base_to_the_bit() -> None:
    pair, linear = make_pair(reads_text=False)
    x = torch.randn(2, 7, IN).double()
    pair.mode.use_weights({"content": 0.0})
    assert torch.equal(pair.forward(x), linear(x))


def test_text_products_are_computed_once_a_run() -> None:
    pair, linear = make_pair(reads_text=True)
    calls = []

    def base(x: Tensor) -> Tensor:
        calls.append(x)
        return linear(x)

    pair.base = base
    contexts: Any = {p: torch.randn(1, 5, IN).double() for p in ("combined", "content", "style")}
    pair.mode.set_contexts(contexts)
    pair.mode.use_pass(TOGETHER)
    first = pair.forward(contexts["combined"])
    assert torch.equal(pair.forward(contexts["combined"]), first)
    assert len(calls) == 1
    pair.mode.set_contexts({p: c + 1 for p, c in contexts.items()})
    assert not torch.equal(pair.forward(contexts["combined"]), first)
    assert len(calls) == 2


def test_text_product_serves_every_row_of_a_batch() -> None:
    pair, _ = make_pair(reads_text=True)
    contexts: Any = {p: torch.randn(1, 5, IN).double() for p in ("combined", "content", "style")}
    pair.mode.set_contexts(contexts)
    pair.mode.use_pass(TOGETHER)
    assert pair.forward(contexts["combined"].expand(3, -1, -1)).shape == (3, 5, OUT)


def test_a_closed_column_gets_no_gradient_outside_a_window() -> None:
    pair, _ = make_pair(reads_text=False)
    x = torch.randn(1, 4, IN).double()
    pair.mode.use_pass(TOGETHER)
    content = pair.branches["content"]

    (closed,) = torch.autograd.grad(pair.forward(x).square().sum(), content.up)
    assert not closed[~content.mask].any()
    assert closed[content.mask].any(dim=1).all()

    pair.mode.window = True
    (opened,) = torch.autograd.grad(pair.forward(x).square().sum(), content.up)
    assert opened.any(dim=1).all()


def test_branches_start_from_the_seed_alone() -> None:
    def start(init: Any, seed: int) -> Branch:
        branch = Branch(IN, OUT, RANK, 3.0, limited=False, device=torch.device("cpu"))
        branch.initialise(init, torch.Generator().manual_seed(seed))
        return branch

    assert torch.equal(start("zero", 1).down, start("zero", 1).down)
    assert not torch.equal(start("zero", 1).down, start("zero", 2).down)
    assert not start("zero", 1).up.any()
    assert start("zero", 1).down.abs().max() <= IN**-0.5
    assert start("random", 1).up.all()
