"""The arithmetic of a step, counted without data."""

from __future__ import annotations

import pytest

pytest.importorskip("peft", reason="peft is not installed (the bench extra)")

from tests.torch_versions import OLD

if OLD:
    pytest.skip("torch 2.1 has no fused attention of tensors without data", allow_module_level=True)

from benchmarks.products import flops, plain_flops
from unziplora.testing.random_checkpoint import Widths

AT = ("koala-700m", 512, 2)  # architecture, resolution, rank
WIDTHS = Widths(unet=(64, 128, 256), text=(64, 128))


@pytest.mark.slow
def test_an_ordinary_step_of_two_loras_takes_hardly_more_than_a_plain_one() -> None:
    """Not one of a measuring window, which is a third more. What depends on
    the prompts alone is computed once a run, so that with so low a rank it may be less."""
    plain = plain_flops(*AT, WIDTHS)
    full, checkpoint = (flops(*AT, plan, WIDTHS) for plan in ("full", "checkpoint"))
    assert 0.95 < full / plain["plain"] < 1.05
    assert 0.95 < checkpoint / plain["plain, checkpointing"] < 1.05
    # what is made again is nearly the whole forward pass
    assert 0.7 < (checkpoint - full) / plain["bare forward"] < 1
