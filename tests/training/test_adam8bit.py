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
    assert torch.allclose(read_m, m, rtol=0.045, atol=0)
    assert torch.allclose(read_v.sqrt(), v.sqrt(), rtol=0.022, atol=0)
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


def test_no_second_moment_is_zero_where_its_block_has_any() -> None:
    moments = Moments([256], torch.device("cpu"))
    v = torch.full((1, 256), 1e-30)
    v[0, 0] = 1.0
    moments.write(v, v, torch.Generator().manual_seed(0))
    assert (moments.read()[1] > 0).all()
