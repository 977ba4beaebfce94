"""Beyond the paper: at noisy timesteps content has fewer ranks (T-LoRA, arXiv 2507.05964).

    r(t) = floor((1 - t/T)^a (r - r_min)) + r_min

The noisiest timesteps decide pose and background, which a LoRA of one image should not memorise.
This is T-LoRA's "vanilla" form: the first r(t) rows of A and columns of B take part, from the usual
start, not an orthogonal one.
"""

from __future__ import annotations

from unziplora.training.settings import ResolvedSettings


def active_rank(rank: int, least: int, exponent: float, t: int, timesteps: int) -> int:
    """r(t), from `rank` at the cleanest timestep to `least` (r_min) at the noisiest. exponent: a.

    t: from 0 to timesteps - 1.
    """
    return int((1 - t / timesteps) ** exponent * (rank - least)) + least


def content_rank(settings: ResolvedSettings, t: int, timesteps: int) -> int | None:
    """Content's at a timestep (from 0) of a run; None where it always has all."""
    if settings.rank_mask is None:
        return None
    least = max(1, int(settings.rank_mask_least * settings.rank))
    return active_rank(settings.rank, least, settings.rank_mask, t, timesteps)
