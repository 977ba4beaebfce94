"""What the probes say of a training's images, beside what they say of the model alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.targets import SAMPLES, Target
from mini_world.probes import Judge

# condition -> what is measured in its images
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "content": ("subject", "style"),  # style here is a leak
    "style": ("style", "subject"),  # subject here is a leak
    "both": ("subject", "style"),
    "cross": ("subject", "style"),
}
LEAKS = ("content.style", "style.subject")


class Scorer:
    """References of each image, embedded once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._known: dict[tuple[str, str], Tensor] = {}

    def reference(self, target: Target, what: str) -> Tensor:
        if (target.name, what) not in self._known:
            make = target.content_reference if what == "subject" else target.style_reference
            self._known[target.name, what] = make(self.judge)
        return self._known[target.name, what]

    def alike(self, images: np.ndarray, what: str, target: Target) -> float:
        """Mean cosine of images with a reference."""
        vectors = (self.judge.content if what == "subject" else self.judge.style)(images)
        return float((vectors @ self.reference(target, what)).mean())

    def score(self, bench: Bench, job: Job, style_of: Job | None) -> dict[str, float]:
        """For each condition and measure: "content.subject" and, less the model alone's,
        "content.subject lift"; "style.obeyed": the share of the style LoRA's images that show
        the class that was asked for. style_of: whose style is crossed with this content; None
        leaves that out."""
        style_target = style_of.target if style_of is not None else None
        made, base = {}, {}
        for condition in CONDITIONS:
            cross = style_of if condition == "cross" else None
            if condition == "cross" and cross is None:
                continue
            made[condition] = bench.samples(job, condition, cross)
            other = (cross or job).target
            base[condition] = bench.base_samples(condition, job.target, other)
        found = self._measured(made, job.target, style_target)
        alone = self._measured(base, job.target, style_target)
        return {**found, **{f"{name} lift": found[name] - alone[name] for name in found}}

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

    def _measured(
        self, made: Mapping[str, np.ndarray], target: Target, style_target: Target | None
    ) -> dict[str, float]:
        scores: dict[str, float] = {}
        for condition, images in made.items():
            for what in CONDITIONS[condition]:
                crossed = what == "style" and condition == "cross"
                of = style_target if crossed and style_target is not None else target
                scores[f"{condition}.{what}"] = self.alike(images, what, of)
            if condition == "style":
                asked = [kind for kind in target.others for _ in range(SAMPLES // 8)]
                right = [a == b for a, b in zip(self.judge.kinds(images), asked, strict=True)]
                scores["style.obeyed"] = float(np.mean(right))
        return scores


def overall(scores: Mapping[str, float]) -> float:
    """What learning rate and steps are chosen by, the same for every method: alignment gained
    less leaks gained, alone and together."""
    gained = ("content.subject", "style.style", "both.subject", "both.style")
    return sum(scores[f"{name} lift"] for name in gained) - sum(
        scores[f"{name} lift"] for name in LEAKS
    )
