"""A borrowed model is afterwards what it was, whatever fails on the way in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.reliability.cleanup import fingerprint, run
from unziplora.errors import ModelDamaged
from unziplora.unet.changes import Changes, borrowed, is_changed, restore
from unziplora.unet.patches import normal_tensors
from unziplora.unet.weight_cast import cast_by_layer


def linear() -> nn.Linear:
    return nn.Linear(4, 4).requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "error", "forge", "full"),
    [
        ("lowest", "a full memory", False, True),
        ("low", "an interruption", False, False),
        ("checkpoint", "an error", True, False),
    ],
)
def test_an_error_on_any_line_leaves_the_model_as_it_was(
    documented: dict[str, Any], plan: str, error: str, forge: bool, full: bool
) -> None:
    """Some lines here; every line, error and plan in `python -m benchmarks.reliability`."""

    def unet() -> Any:
        with torch.inference_mode(forge):
            return documented["small_unet"]().half()

    found = run(unet, plan, error, every=17, forge=forge, full_in_between=full)
    assert not found.findings, "\n".join(found.findings)
    assert found.at_once > 5
    assert found.declared_damaged == 0


def test_one_step_that_fails_keeps_no_other_from_being_undone() -> None:
    model, done = linear(), []
    changes = Changes(model)
    changes.then(lambda: done.append("first"))
    changes.then(fails(RuntimeError("the first error")))
    changes.then(lambda: done.append("last"))
    with pytest.raises(RuntimeError, match="the first error"):
        changes.end()
    assert done == ["last", "first"]


def test_a_step_that_succeeds_the_second_time_is_no_error() -> None:
    model = linear()
    with borrowed(model), Changes(model) as changes:
        changes.then(fails(torch.cuda.OutOfMemoryError("full"), times=1))
    assert not is_changed(model)


def test_an_interruption_is_passed_on_after_all_was_undone() -> None:
    model, done = linear(), []
    changes = Changes(model)
    changes.then(lambda: done.append("undone"))
    changes.then(fails(KeyboardInterrupt(), times=1))
    with pytest.raises(KeyboardInterrupt):
        changes.end()
    assert done == ["undone"]
    assert not is_changed(model)


@pytest.mark.slow
def test_a_model_that_cannot_be_restored_refuses_to_run_until_it_can() -> None:
    model, x = linear(), torch.ones(1, 4)
    wanted = model(x)
    fault = fails(torch.cuda.OutOfMemoryError("full"), times=5)
    with pytest.raises(ModelDamaged, match="Load the checkpoint again"), borrowed(model):
        Changes(model).then(fault)
    with pytest.raises(ModelDamaged):
        model(x)
    with pytest.raises(ModelDamaged), borrowed(model):
        pytest.fail("a damaged model was borrowed")
    with borrowed(model):
        assert torch.equal(model(x), wanted)
    assert not is_changed(model)


def test_changes_of_one_place_may_end_in_any_order() -> None:
    layer, x = linear(), torch.ones(1, 4)
    wanted = layer(x)
    outer, inner = Changes(layer), Changes(layer)
    outer.replace_forward(layer, lambda x: x + 1)
    inner.replace_forward(layer, lambda x: x + 2)
    outer.end()
    assert torch.equal(layer(x), x + 2)
    inner.end()
    assert torch.equal(layer(x), wanted)
    assert "forward" not in layer.__dict__
    assert not is_changed(layer)


def test_what_was_left_changed_is_undone_when_the_loan_ends() -> None:
    layer, x = linear(), torch.ones(1, 4)
    wanted = layer(x)
    with borrowed(layer):
        Changes(layer).replace_forward(layer, lambda x: x + 1)  # its end was never reached
        assert torch.equal(layer(x), x + 1)
    assert torch.equal(layer(x), wanted)


def test_a_loan_whose_end_was_not_reached_is_made_up_for_at_the_next() -> None:
    layer = linear()
    before = fingerprint(layer)
    loan = borrowed(layer)
    loan.__enter__()
    Changes(layer).replace_forward(layer, lambda x: x + 1)
    with borrowed(layer):
        assert fingerprint(layer) == before
    assert not is_changed(layer)


def test_fp8_weights_stay_while_a_host_has_its_own_tensors_back_for_a_preview() -> None:
    """Forge: the stand-ins for its tensors go and come while the memory plan lasts."""
    with torch.inference_mode():
        layer = nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)
    before, x = fingerprint(layer), torch.randn(2, 8)
    with borrowed(layer):
        first = normal_tensors(layer)
        first.__enter__()
        with cast_by_layer(layer, {}, fp8=True):
            in_fp8 = layer(x)
            first.__exit__(None, None, None)
            assert torch.equal(layer(x), in_fp8)
            second = normal_tensors(layer)
            second.__enter__()
            assert torch.equal(layer(x), in_fp8)
        second.__exit__(None, None, None)
    assert fingerprint(layer) == before


def test_nothing_is_restored_that_others_still_use() -> None:
    """Branches that were attached outside of a loan stay attached when one begins."""
    layer, x = linear(), torch.ones(1, 4)
    mine = Changes(layer)
    mine.replace_forward(layer, lambda x: x + 1)
    loan = borrowed(layer)
    with loan:
        assert torch.equal(layer(x), x + 1)
    restore(layer)


def fails(error: BaseException, times: int = 1000) -> Callable[[], None]:
    left = [error] * times

    def step() -> None:
        if left:
            raise left.pop()

    return step
