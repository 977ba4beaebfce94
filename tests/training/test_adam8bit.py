"""Adam's moments in 8 bits, and rounding that is right on average."""

from __future__ import annotations

import pytest
import torch

from unziplora.training.adam8bit import Moments, in_fp32, rounded


def test_eight_bits_keep_moments_within_their_precision() -> None:
    size = torch.logspace(-4, 0, 512)
    m = (size * torch.where(torch.arange(512) % 2 == 0, 1.0, -1.0)).view(2, 256)
    v = size.square().view(2, 256)
    moments = Moments([256, 256], torch.device("cpu"))
    moments.write(m, v, None)
    read_m, read_v = moments.read()
    # half of the widest step, at the start of an octave
    assert torch.allclose(read_m, m, rtol=0.0626, atol=0)
    assert torch.allclose(read_v.sqrt(), v.sqrt(), rtol=0.0313, atol=0)
    assert torch.equal(in_fp32(moments.tensors(1))["exp_avg"], read_m[1])


def test_rounding_is_right_on_average() -> None:
    """Nearest rounding of v after 0.999 v would give v back for ever."""
    generator = torch.Generator().manual_seed(0)
    v = torch.ones(64, 256)
    v[:, 0] = 4.0  # keeps the scale
    moments = Moments([v.numel()], torch.device("cpu"))
    moments.write(v, v, generator)
    for _ in range(200):
        m, v = moments.read()
        v *= 0.999
        v[:, 0] = 4.0
        moments.write(m, v, generator)
    mean = moments.read()[1][:, 1:].mean()
    assert mean == pytest.approx(0.999**200, rel=0.02)

    weight = torch.full((100_000,), 0.03)
    steps = sum(rounded(weight + 5e-5, torch.bfloat16, generator).float().mean() for _ in range(4))
    assert float(steps) / 4 == pytest.approx(0.03 + 5e-5, abs=3e-6)


def test_the_mean_of_a_rounded_moment_is_the_moment_however_small() -> None:
    generator = torch.Generator().manual_seed(0)
    for value in (0.3, -0.01, 3e-6):  # the last below the smallest code
        m = torch.full((4000, 256), value)
        m[:, 0] = 1.0  # keeps the scale
        moments = Moments([m.numel()], torch.device("cpu"))
        moments.write(m, m.square(), generator)
        read = moments.read()[0]
        assert read[:, 1:].mean() == pytest.approx(value, rel=0.01)
        assert torch.equal(read[:, 0], m[:, 0])


def test_moments_that_version_0_2_0_saved_are_read() -> None:
    steps = torch.arange(-127, 128, dtype=torch.int8).repeat(2)[None, :256]
    saved = {"exp_avg": steps, "exp_avg_scale": torch.full((1, 1), 0.5),
             "exp_avg_sq": torch.arange(256, dtype=torch.uint8)[None],
             "exp_avg_sq_scale": torch.full((1, 1), 2.0)}  # fmt: skip
    m, v = in_fp32(saved).values()
    assert m[:2].tolist() == pytest.approx([-0.5, -0.5 * 2 ** (-1 / 8)])
    assert m[127] == 0
    assert v[-2:].tolist() == pytest.approx([4 * 2 ** (-1 / 8), 4.0])
    moments = Moments([256], torch.device("cpu"))
    moments.restore(0, saved)
    assert torch.allclose(moments.read()[0][0], m, rtol=0.0626, atol=1e-5)
    assert torch.allclose(moments.read()[1][0], v, rtol=0.0636, atol=0)


def test_no_second_moment_is_zero_where_its_block_has_any() -> None:
    moments = Moments([256], torch.device("cpu"))
    v = torch.full((1, 256), 1e-30)
    v[0, 0] = 1.0
    moments.write(v, v, torch.Generator().manual_seed(0))
    assert (moments.read()[1] > 0).all()
