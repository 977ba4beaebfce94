"""What a target must offer before any method runs on it, and what the miniature must be able to do.

A target without headroom tells nothing: where the style takes the colours that tell individuals
apart, where the VAE takes the style, where the base already draws the subject or the style. And a
miniature on which even DreamBooth, at its best rate and free to leak, reaches neither the subject
nor the style of its image cannot decide between methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.quality.runs import Bench
from benchmarks.quality.scores import Referee
from benchmarks.quality.targets import Target
from mini_world.emoji.styles import STYLES

STYLE_THROUGH_VAE = 0.85  # cosine of the world's own images after the VAE with their style
SUBJECT_ABOVE_BASE = 0.10  # of the image itself over what the base draws
BASE_STYLE = 0.5  # at most, of what the base draws from the same words
CAPACITY = 0.05  # DreamBooth's best may miss the image's own scores by so much


@dataclass(frozen=True)
class Headroom:
    """Cosines of one target, by the world's own networks."""

    target: str
    keeps_colours: bool
    style_through_vae: float
    own_subject: float
    base_subject: float
    base_style: float

    @property
    def numbers(self) -> dict[str, float]:
        """By name, as `of` takes them."""
        return {name: float(value) for name, value in asdict(self).items() if name != "target"}

    @classmethod
    def of(cls, target: str, numbers: Mapping[str, float]) -> Headroom:
        """From its numbers by name."""
        rest = {name: value for name, value in numbers.items() if name != "keeps_colours"}
        return cls(target, bool(numbers["keeps_colours"]), **rest)

    def faults(self) -> list[str]:
        """Why this target is left out; empty where it passes."""
        gain = self.own_subject - self.base_subject
        checks = (
            (self.keeps_colours, "the style keeps no colours"),
            (
                self.style_through_vae >= STYLE_THROUGH_VAE,
                f"style through the VAE {self.style_through_vae:.2f} < {STYLE_THROUGH_VAE}",
            ),
            (
                gain >= SUBJECT_ABOVE_BASE,
                f"own subject {gain:+.2f} over the base < +{SUBJECT_ABOVE_BASE:.2f}",
            ),
            (self.base_style <= BASE_STYLE, f"base style {self.base_style:.2f} > {BASE_STYLE}"),
        )
        return [fault for passed, fault in checks if not passed]


def headroom(bench: Bench, judge: Referee, target: Target) -> Headroom:
    """What there is to gain on a target: the base's samples, the world's, the VAE's."""
    subject, style = target.content_reference(judge), target.style_reference(judge)
    through = bench.sampler.through_vae(target.drawn_by_style())
    base = {name: bench.base_samples(name, target, target) for name in ("content", "style")}

    def mean(vectors: np.ndarray) -> float:
        return float(np.mean(vectors))

    return Headroom(
        target.name,
        STYLES[target.style].keeps_colour,
        mean((judge.style(through) @ style).numpy()),
        mean((judge.content(target.image()[None]) @ subject).numpy()),
        mean((judge.content(base["content"]) @ subject).numpy()),
        mean((judge.style(base["style"]) @ style).numpy()),
    )


def passing(found: Sequence[Headroom], targets: Sequence[Target]) -> list[Target]:
    """The targets without faults: each style's first one, then each style's second, and so on, so
    that the first few are of many styles."""
    good = {room.target for room in found if not room.faults()}
    left = [target for target in targets if target.name in good]
    turns = Counter[str]()
    places = {}
    for target in left:
        places[target.name] = turns[target.style]
        turns[target.style] += 1
    return sorted(left, key=lambda target: places[target.name])


def by_faults(found: Sequence[Headroom], targets: Sequence[Target]) -> list[Target]:
    """All targets, those with the fewest faults first."""
    count = {room.target: len(room.faults()) for room in found}
    return sorted(targets, key=lambda target: count[target.name])


def headroom_text(found: Sequence[Headroom]) -> str:
    lines = []
    for room in found:
        lines.append(f"{room.target:40} {'; '.join(room.faults()) or 'passed'}")
    count = sum(not room.faults() for room in found)
    return "\n".join([*lines, f"{count} of {len(found)} targets pass."])


def capacity(dreambooth: Mapping[str, float], copy: Mapping[str, float]) -> dict[str, bool]:
    """Whether DreamBooth's LoRAs, at their best rate, reach what a copy of the image scores.

    dreambooth, copy: mean scores by measure.
    """
    return {
        name: dreambooth[name] >= copy[name] - CAPACITY
        for name in ("content.subject", "style.style")
    }


def capacity_text(reached: Mapping[str, bool]) -> str:
    missed = [name for name, yes in reached.items() if not yes]
    if not missed:
        return "Capacity: DreamBooth's LoRAs reach the image's own scores. Passed."
    return (
        f"Capacity FAILED: DreamBooth's LoRAs do not reach the image's own {' and '.join(missed)}. "
        "What this model shows of these measures decides nothing between methods."
    )
