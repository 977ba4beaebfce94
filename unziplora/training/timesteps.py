"""Which timestep a step trains at: drawn at random (the paper), or stratified."""

from __future__ import annotations

import torch

BLOCK = 20  # draws that cover the schedule once


def stratified(number: int, timesteps: int, seed: int) -> int:
    """The timestep (0 to timesteps - 1) of draw `number` (from 0): each block of 20 draws has one
    in each twentieth of the schedule, in an order of its own. The same for the same seed, so that a
    resumed run continues with it."""
    block, place = divmod(number, BLOCK)
    # 64 bits that differ for each block and seed; the generator mixes them
    generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
    order = torch.randperm(BLOCK, generator=generator)
    within = torch.rand(BLOCK, generator=generator, dtype=torch.float64)
    return int((order[place] + within[place]) / BLOCK * timesteps)
