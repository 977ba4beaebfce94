"""Which attention group carries content and which style, measured on a model
(the command: benchmarks/block_probe.py).

One group at a time reads another prompt while all others keep theirs
(unziplora/unet/prompt_swap.py). A judge embeds the three images of one seed: all groups with the
first prompt, all with the second, and one group with the second. The shift is how far the last went
from the first to the second, 0 to 1. The judge is whatever has `content` and `style` that embed
images: here the networks of the emoji world; for another model, embeddings that fit its images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mini_world.captions import article
from mini_world.emoji.world import CORE_KINDS, CORE_STYLES
from mini_world.sampler import Sampler
from unziplora.unet.architectures import recognise
from unziplora.unet.prompt_swap import other_context


class Embeds(Protocol):
    def content(self, images: np.ndarray) -> Tensor: ...

    def style(self, images: np.ndarray) -> Tensor: ...


@dataclass(frozen=True)
class Shift:
    """Means over the pairs and their standard errors."""

    content: float
    content_error: float
    style: float
    style_error: float


Pair = tuple[str, str]  # the prompt of all groups, the prompt of one


def standard_pairs(count: int = 24) -> list[Pair]:
    """Prompts of the emoji world that differ in class and in style."""
    rng = np.random.default_rng(41)
    pairs = []
    for _ in range(count):
        kinds = rng.choice(CORE_KINDS, 2, replace=False)
        styles = rng.choice(CORE_STYLES, 2, replace=False)
        a, b = (f"{article(str(k))} in {s} style" for k, s in zip(kinds, styles, strict=True))
        pairs.append((a, b))
    return pairs


def measure(sampler: Sampler, judge: Embeds, pairs: Sequence[Pair]) -> dict[str, Shift]:
    """The shift of each attention group, in the order in which the UNet runs them."""
    seeds = list(range(len(pairs)))
    first, second = ([pair[n] for pair in pairs] for n in (0, 1))

    def embedded(images: np.ndarray) -> tuple[Tensor, Tensor]:
        return judge.content(images), judge.style(images)

    start = embedded(sampler.images(first, seeds))
    end = embedded(sampler.images(second, seeds))
    shifts = {}
    for group in recognise(sampler.host.unet).groups:
        now = embedded(swapped(sampler, group, first, second, seeds))
        numbers: list[float] = []
        for a, b, c in zip(start, end, now, strict=True):
            apart = ((b - a) * (b - a)).sum(-1)
            # pairs that the judge cannot tell apart say nothing
            seen = apart > 0.2
            moved = (((c - a) * (b - a)).sum(-1) / apart)[seen]
            numbers += [float(moved.mean()), float(moved.std() / math.sqrt(len(moved)))]
        shifts[group] = Shift(*numbers)
    return shifts


def swapped(
    sampler: Sampler, group: str, first: Sequence[str], second: Sequence[str], seeds: Sequence[int]
) -> np.ndarray:
    """Images of the first prompts with one group reading the second."""
    parts = []
    none = sampler.embeddings([""])[0]
    for i in range(0, len(first), 8):
        a, b, s = first[i : i + 8], second[i : i + 8], seeds[i : i + 8]
        context = torch.cat([none.expand(len(b), -1, -1), sampler.embeddings(b)[0]])
        with other_context(sampler.host.unet, group, context):
            parts.append(sampler.images(a, s))
    return np.concatenate(parts)


def active(shifts: Mapping[str, Shift], least: float = 0.1) -> list[str]:
    """Groups that move content or style by a tenth of the way or more, beyond two errors."""
    return [
        group
        for group, s in shifts.items()
        if (s.content > least and s.content > 2 * s.content_error)
        or (s.style > least and s.style > 2 * s.style_error)
    ]


def as_text(shifts: Mapping[str, Shift]) -> str:
    lines = [f"{'group':18} {'content':>14} {'style':>14}"]
    for group, s in shifts.items():
        content = f"{s.content:+.2f} ± {s.content_error:.2f}"
        lines.append(f"{group:18} {content:>14} {f'{s.style:+.2f} ± {s.style_error:.2f}':>14}")
    return "\n".join(lines)
