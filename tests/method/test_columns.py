"""Importance, selection, recalibration and eq. 5."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.method.test_branches import TOGETHER, make_pair
from unziplora.method.branches import Branch, BranchPair
from unziplora.method.columns import (
    ColumnSchedule,
    orthogonality,
    recalibrate,
    select,
    stage_columns,
)
from unziplora.method.forward_mode import ForwardMode
from unziplora.method.functional import column_magnitude, signed_importance

scores = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=40)


def bare_pair(out: int, *, content: bool = True, style: bool = True) -> BranchPair:
    def branch(limited: bool) -> Branch:
        made = Branch(4, out, 2, 2.0, limited=limited, device=torch.device("cpu"))
        made.score = torch.rand(out)
        return made

    branches: Any = {"content": branch(content), "style": branch(style)}
    return BranchPair(lambda x: x, branches, ForwardMode(), reads_text=False)


@given(score=scores, data=st.data())
def test_selection_takes_exactly_the_best_free_columns(score: list[float], data: Any) -> None:
    out = len(score)
    taken = torch.tensor(data.draw(st.lists(st.booleans(), min_size=out, max_size=out)))
    count = data.draw(st.integers(0, out + 3))
    values = torch.tensor(score)

    chosen = select(values, taken, count)

    assert not (chosen & taken).any()
    assert int(chosen.sum()) == min(count, int((~taken).sum()))
    left = ~chosen & ~taken
    if chosen.any() and left.any():
        assert values.abs()[chosen].min() >= values.abs()[left].max()
    assert torch.equal(chosen, select(values, taken, count))


@given(out=st.integers(1, 3000), percent=st.floats(0.1, 100))
def test_a_stage_opens_a_third_of_n_percent(out: int, percent: float) -> None:
    assert abs(stage_columns(out, percent) - percent / 300 * out) <= 0.5 + 1e-9


@given(
    out=st.integers(3, 200),
    percent=st.floats(1, 100),
    content=st.booleans(),
    style=st.booleans(),
    seed=st.integers(0, 99),
)
def test_masks_grow_by_stages_and_never_shrink(
    out: int, percent: float, content: bool, style: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    pair = bare_pair(out, content=content, style=style)
    earlier = {name: torch.zeros_like(branch.mask) for name, branch in pair.branches.items()}
    for stage in range(3):
        for branch in pair.branches.values():
            branch.score = torch.randn(out)
        before_content = pair.branches["content"].mask.clone() if stage else earlier["content"]
        recalibrate(pair, percent, first=stage == 0)
        for name, branch in pair.branches.items():
            if not branch.limited:
                assert branch.mask.all()
                continue
            new = branch.mask & ~earlier[name]
            assert (branch.mask | ~earlier[name]).all()
            room = int((~earlier[name]).sum())
            if name == "style" and content:
                assert not (new & pair.branches["content"].mask).any()
                room = int((~earlier[name] & ~pair.branches["content"].mask).sum())
            assert int(new.sum()) == min(stage_columns(out, percent), room)
            earlier[name] = branch.mask.clone()
        assert (pair.branches["content"].mask | ~before_content).all()


def test_content_picks_first_and_style_among_the_rest() -> None:
    pair = bare_pair(10)
    for branch in pair.branches.values():
        branch.score = torch.tensor([9.0, -8, 7, 6, 5, 4, 3, 2, 1, 0])
    recalibrate(pair, 60, first=True)  # two columns a stage
    assert pair.branches["content"].mask.nonzero().flatten().tolist() == [0, 1]
    assert pair.branches["style"].mask.nonzero().flatten().tolist() == [2, 3]
    recalibrate(pair, 60, first=False)  # content may take what style holds
    assert pair.branches["content"].mask.nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert pair.branches["style"].mask.nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_the_authors_way_ranks_open_columns_too_so_that_masks_stall() -> None:
    """Where each window finds the same order; content and style avoid each other as ever."""
    pair = bare_pair(10)
    for branch in pair.branches.values():
        branch.score = torch.arange(10.0)
    for stage in range(3):
        recalibrate(pair, 60, first=stage == 0, reselect=True)
    assert pair.branches["content"].mask.nonzero().flatten().tolist() == [8, 9]
    assert pair.branches["style"].mask.nonzero().flatten().tolist() == [6, 7]
    pair.branches["content"].score = -torch.arange(9.0, -1, -1)  # another order opens others
    recalibrate(pair, 60, first=False, reselect=True)
    assert pair.branches["content"].mask.nonzero().flatten().tolist() == [0, 1, 8, 9]


def test_magnitude_is_that_of_the_dense_gradient() -> None:
    pair, _ = make_pair(reads_text=False)
    pair.mode.use_pass(TOGETHER)
    pair.mode.window = pair.mode.measuring = True
    x = torch.randn(2, 5, 10).double()
    weight = torch.randn(2, 5, 12).double()
    (pair.forward(x) * weight).sum().backward()

    for branch in pair.branches.values():
        dense = (branch.up @ branch.down).detach().requires_grad_()
        gate = (branch.merger * branch.scale).detach()
        (grad,) = torch.autograd.grad((x @ (gate[:, None] * dense).T * weight).sum(), dense)
        expected = (dense * grad).abs().sum(dim=1)
        assert torch.allclose(branch.step_score, expected, rtol=1e-5)


def test_magnitude_of_text_layers_uses_each_branchs_own_prompt() -> None:
    pair, _ = make_pair(reads_text=True)
    contexts: Any = {p: torch.randn(1, 5, 10).double() for p in ("combined", "content", "style")}
    pair.mode.set_contexts(contexts)
    pair.mode.use_pass(TOGETHER)
    pair.mode.window = pair.mode.measuring = True
    weight = torch.randn(1, 5, 12).double()
    (pair.forward(contexts["combined"]) * weight).sum().backward()
    for name, branch in pair.branches.items():
        gate = branch.merger * branch.scale
        expected = column_magnitude(branch.down, branch.up, gate, weight, contexts[name])
        assert torch.allclose(branch.step_score, expected.double())


def test_signed_importance_is_the_gradient_of_an_open_merger() -> None:
    pair, _ = make_pair(reads_text=False)
    content = pair.branches["content"]
    with torch.no_grad():
        content.merger.fill_(1)
    pair.mode.use_pass(TOGETHER)
    pair.mode.window = True
    pair.forward(torch.randn(2, 5, 10).double()).square().sum().backward()
    assert content.up.grad is not None
    assert content.merger.grad is not None
    assert torch.allclose(signed_importance(content.up, content.up.grad), content.merger.grad)


def test_orthogonality_is_the_overlap_of_effective_masks() -> None:
    narrow, wide = bare_pair(4, style=False), bare_pair(8)
    with torch.no_grad():
        narrow.branches["content"].mask = torch.tensor([1, 1, 0, 0]).bool()
        narrow.branches["content"].merger.fill_(0.5)
        wide.branches["content"].mask = torch.arange(8) < 4
        wide.branches["style"].mask = torch.arange(8) >= 2
    # style is full in the narrow pair: its mask counts as ones
    assert orthogonality([narrow, wide], "sum").item() == 2 * 0.5 + 2
    assert orthogonality([narrow, wide], "mean").item() == (0.25 + 0.25) / 2
    orthogonality([narrow, wide]).backward()
    gradient = narrow.branches["style"].merger.grad
    assert gradient is not None
    assert gradient.tolist() == [0.5 / 4 / 2] * 2 + [0] * 2


def test_windows_open_at_zero_t_and_two_t() -> None:
    schedule = ColumnSchedule(every=200, window=5)
    measured = [step for step in range(600) if schedule.measures(step)]
    assert measured == [*range(5), *range(200, 205), *range(400, 405)]
    assert [s for s in range(600) if schedule.opens_window(s)] == [0, 200, 400]
    assert [s for s in range(600) if schedule.selects_after(s)] == [4, 204, 404]
