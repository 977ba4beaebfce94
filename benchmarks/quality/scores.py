"""What the referees say of a training's images, beside what they say of the model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from benchmarks.quality.effect import relative_change
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.targets import SAMPLES, Target
from mini_world.probes import Judge
from unziplora.method.methods import INSPIRATION_TREE
from unziplora.method.prompts import BranchName

# condition -> what is measured in its images
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "content": ("subject", "style"),  # style here is a leak
    "style": ("style", "subject"),  # subject here is a leak
    "both": ("subject", "style"),
    "cross": ("subject", "style"),
}
TOGETHER = ("both.subject", "both.style", "cross.subject", "cross.style")
LEAKS = ("content.style", "style.subject")


# what a rate is chosen by; leaks are reported beside it and never subtracted
ALIGNMENT = ("content.subject", "style.style", "both.subject", "both.style")


class Referee(Protocol):
    """Embeds images (n, h, w, 3) uint8 as unit vectors (n, d)."""

    name: str

    def content(self, images: np.ndarray) -> Tensor: ...

    def style(self, images: np.ndarray) -> Tensor: ...


class Scorer:
    """References of each image, embedded once by each referee.

    The world's own networks give scores by their measure's name ("content.subject"); those of the
    other referees have their name before it ("EfficientNet-lite0: content.subject").
    """

    def __init__(self, judge: Judge, others: Sequence[Referee] = ()) -> None:
        self.judge = judge
        self.referees: dict[str, Referee] = {"": judge, **{f"{o.name}: ": o for o in others}}
        self._known: dict[tuple[str, str, str], Tensor] = {}
        self._base: dict[tuple[str, str, str], dict[str, float]] = {}

    def reference(self, target: Target, what: str, prefix: str = "") -> Tensor:
        key = (prefix, target.name, what)
        if key not in self._known:
            make = target.content_reference if what == "subject" else target.style_reference
            self._known[key] = make(self.referees[prefix])
        return self._known[key]

    def alike(self, images: np.ndarray, what: str, target: Target, prefix: str = "") -> float:
        """Mean cosine of images with a reference."""
        referee = self.referees[prefix]
        vectors = (referee.content if what == "subject" else referee.style)(images)
        return float((vectors @ self.reference(target, what, prefix)).mean())

    def score(self, bench: Bench, job: Job, style_of: Job | None) -> dict[str, float]:
        """For each condition and measure: "content.subject" and, less the model alone's,
        "content.subject lift"; "style.obeyed": the share of the style LoRA's images that show
        the class that was asked for; "content.dW/W", "style.dW/W": the size of the change.
        style_of: whose style is crossed with this content; None leaves that out."""
        style_target = style_of.target if style_of is not None else None
        samples: dict[str, np.ndarray] = {}
        alone: dict[str, float] = {}
        for condition in CONDITIONS:
            cross = style_of if condition == "cross" else None
            if condition == "cross" and cross is None:
                continue
            samples[condition] = bench.samples(job, condition, cross)
            alone |= self._alone(bench, condition, job.target, (cross or job).target)
        found = self._measured(samples, job.target, style_target)
        # embeddings change no weight
        change = {
            f"{role}.dW/W": relative_change(path, bench.sampler.host.unet)
            if job.method != INSPIRATION_TREE
            else 0.0
            for role, path in bench.pair(job).items()
        }
        lifts = {f"{name} lift": found[name] - alone[name] for name in found}
        return {**found, **lifts, **change, **bench.seconds(job)}

    def score_merged(self, bench: Bench, job: Job, style_of: Job, how: str) -> dict[str, float]:
        """The measures of "both" and "cross" where the two LoRAs were made one file. how: of
        MERGE_METHODS."""
        samples = {
            "both": bench.samples(job, "both", how=how),
            "cross": bench.samples(job, "cross", style_of, how),
        }
        return self._measured(samples, job.target, style_of.target)

    def score_limited(
        self, bench: Bench, job: Job, role: BranchName, groups: Sequence[str]
    ) -> dict[str, float]:
        """The lifts of one role's LoRA alone, with its layers in these attention groups only."""
        images = bench.limited_samples(job, role, groups)
        found = self._measured({role: images}, job.target, None)
        alone = self._alone(bench, role, job.target, job.target)
        return {f"{name} lift": found[name] - alone[name] for name in found}

    def _alone(
        self, bench: Bench, condition: str, target: Target, style_target: Target
    ) -> dict[str, float]:
        """The model without LoRAs, measured once for all methods."""
        key = (condition, target.name, style_target.name)
        if key not in self._base:
            images = bench.base_samples(condition, target, style_target)
            self._base[key] = self._measured({condition: images}, target, style_target)
        return self._base[key]

    def truth(self, target: Target, style_target: Target) -> dict[str, float]:
        """The same measures of what the world itself draws where the LoRAs are asked: as much as
        can be reached."""
        drawn = {
            "content": target.drawn(""),
            "style": target.drawn_by_style(),
            "both": target.drawn(target.style, target.number),
            "cross": target.drawn(style_target.style, style_target.number),
        }
        return self._measured(drawn, target, style_target)

    def copy(self, bench: Bench, target: Target, style_target: Target) -> dict[str, float]:
        """The same measures of the image itself, through the VAE: what copying it would score. In
        place of the cross it is the style's image."""
        own, other = bench.sampler.through_vae(np.stack([target.image(), style_target.image()]))
        samples = {name: np.stack([own] * SAMPLES) for name in ("content", "style", "both")}
        return self._measured({**samples, "cross": other[None]}, target, style_target)

    def _measured(
        self, samples: Mapping[str, np.ndarray], target: Target, style_target: Target | None
    ) -> dict[str, float]:
        scores: dict[str, float] = {}
        for condition, images in samples.items():
            for prefix in self.referees:
                for what in CONDITIONS[condition]:
                    crossed = what == "style" and condition == "cross"
                    of = style_target if crossed and style_target is not None else target
                    scores[f"{prefix}{condition}.{what}"] = self.alike(images, what, of, prefix)
            if condition == "style":
                requested = [kind for kind in target.others for _ in range(SAMPLES // 8)]
                right = [a == b for a, b in zip(self.judge.kinds(images), requested, strict=True)]
                scores["style.obeyed"] = float(np.mean(right))
        return scores


def alignment(scores: Mapping[str, float]) -> float:
    """What learning rates are chosen by, the same for every method: the mean alignment gained,
    alone and together, by the world's own networks."""
    return sum(scores[f"{name} lift"] for name in ALIGNMENT) / len(ALIGNMENT)
