"""Gates multiply the gradients of a branch's own numbers, and nothing else; fewer rows of A."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.method.test_branches import IN, RANK, TOGETHER, make_pair
from unziplora.errors import TrainingFailed
from unziplora.method.gradient_gate import GradientGate

TOKENS = 6
PARTS = ("down", "up", "merger")


def layer(
    gates: Mapping[Any, GradientGate] | None = None,
    rows: Mapping[Any, int] | None = None,
    *,
    reads_text: bool = False,
    weight: Tensor | None = None,
    kept_rows: int = RANK,
) -> dict[str, Tensor]:
    """A layer's output in float64, and the gradient of the sum of weight * output for all that it
    depends on. weight: (tokens, 1). kept_rows: of content's A, that are not zero."""
    torch.manual_seed(0)
    pair, _ = make_pair(reads_text=reads_text)
    with torch.no_grad():
        pair.branches["content"].down[kept_rows:] = 0
    texts: Any = {p: torch.randn(1, TOKENS, IN).double() for p in ("combined", "content", "style")}
    pair.mode.set_contexts(texts)
    pair.mode.measuring = pair.mode.window = True
    pair.mode.use_pass(TOGETHER, gates, rows)
    x = texts["combined"].requires_grad_(not reads_text)
    y = pair.forward(x)
    ((torch.ones(TOKENS, 1) if weight is None else weight) * y.square()).sum().backward()
    found = {"y": y.detach(), "x": torch.zeros(1) if x.grad is None else x.grad}
    for name, branch in pair.branches.items():
        found |= {f"{name}:{part}": getattr(branch, part).grad for part in PARTS}
        found[f"{name}:score"] = branch.step_score
    return found


def half() -> Tensor:
    """The first tokens are of the subject, one lies half in it."""
    return torch.tensor([1.0, 1.0, 0.5, 0, 0, 0]).double()[:, None]


@pytest.mark.parametrize("reads_text", [False, True])
def test_a_number_multiplies_one_branchs_gradients_and_importance(reads_text: bool) -> None:
    plain = layer(reads_text=reads_text)
    gated = layer({"content": GradientGate(0.25)}, reads_text=reads_text)
    for name, expected in plain.items():
        factor = 0.25 if name.startswith("content") else 1.0
        assert torch.allclose(gated[name], factor * expected, rtol=1e-5), name


def test_a_mask_leaves_the_gradient_of_its_positions_only() -> None:
    """As if the loss had been masked, for the branch; for everything else, as if there was none."""
    gates = {"content": GradientGate(2.0, {TOKENS: half()[None]})}
    plain, masked, gated = layer(), layer(weight=2 * half()), layer(gates)
    for name, expected in plain.items():
        wanted = masked[name] if name.startswith("content") else expected
        assert torch.allclose(gated[name], wanted, rtol=1e-5), name
    assert not torch.allclose(plain["content:up"], masked["content:up"])


def test_from_outside_the_mask_nothing_trains_the_branch() -> None:
    inside = (half() == 1).double()
    gates = {"content": GradientGate(1.0, {TOKENS: inside[None]})}
    gated = layer(gates, weight=1 - inside)
    for name in ("down", "up", "merger"):
        assert not gated[f"content:{name}"].any()
        assert gated[f"style:{name}"].any()
    assert gated["x"].any()


def test_a_text_has_no_positions() -> None:
    plain = layer(reads_text=True)
    gated = layer({"content": GradientGate(1.0, {TOKENS: half()[None]})}, reads_text=True)
    assert all(torch.allclose(gated[name], plain[name]) for name in plain)


def test_tokens_that_are_not_the_images_are_refused() -> None:
    gates = {"content": GradientGate(1.0, {TOKENS + 1: torch.ones(1, TOKENS + 1, 1)})}
    with pytest.raises(TrainingFailed, match="reads 6 tokens"):
        layer(gates)


@pytest.mark.parametrize("reads_text", [False, True])
def test_rows_of_a_that_take_no_part_are_as_if_zero(reads_text: bool) -> None:
    plain, fewer, zeroed = (
        layer(reads_text=reads_text),
        layer(rows={"content": 1}, reads_text=reads_text),
        layer(kept_rows=1, reads_text=reads_text),
    )
    assert torch.allclose(fewer["y"], zeroed["y"])
    assert torch.allclose(fewer["content:score"], zeroed["content:score"])
    assert not torch.allclose(fewer["y"], plain["y"])
    assert not fewer["content:down"][1:].any()
    assert not fewer["content:up"][:, 1:].any()
    assert fewer["content:down"][0].any()
    all_rows = layer(rows={"content": RANK}, reads_text=reads_text)
    assert all(torch.allclose(all_rows[name], plain[name]) for name in plain)
