"""What the probes say of a training's pictures, beside what they say of the model alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.targets import Target
from mini_world.probes import Judge

# condition -> what is measured in its pictures
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "content": ("subject", "style"),  # style here is a leak
    "style": ("style", "subject"),  # subject here is a leak
    "both": ("subject", "style"),
    "cross": ("subject", "style"),
}
LEAKS = ("content.style", "style.subject")


class Scorer:
    """References of each picture, embedded once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._known: dict[tuple[str, str], Tensor] = {}

    def reference(self, target: Target, what: str) -> Tensor:
        if (target.name, what) not in self._known:
            make = target.content_reference if what == "subject" else target.style_reference
            self._known[target.name, what] = make(self.judge)
        return self._known[target.name, what]

    def alike(self, pictures: np.ndarray, what: str, target: Target) -> float:
        """Mean cosine of pictures with a reference."""
        vectors = (self.judge.content if what == "subject" else self.judge.style)(pictures)
        return float((vectors @ self.reference(target, what)).mean())

    def score(self, bench: Bench, job: Job, style_of: Job | None) -> dict[str, float]:
        """For each condition and measure: "content.subject" and, less the model alone's,
        "content.subject lift"; "style.obeyed": the share of the style LoRA's pictures that show
        the class that was asked for. style_of: whose style is crossed with this content; None
        leaves that out."""
        scores: dict[str, float] = {}
        for condition, measures in CONDITIONS.items():
            cross = style_of if condition == "cross" else None
            if condition == "cross" and cross is None:
                continue
            style_target = (cross or job).target
            made = bench.samples(job, condition, cross)
            base = bench.base_samples(condition, job.target, style_target)
            for what in measures:
                target = job.target if what == "subject" else style_target
                name = f"{condition}.{what}"
                scores[name] = self.alike(made, what, target)
                scores[f"{name} lift"] = scores[name] - self.alike(base, what, target)
            if condition == "style":
                asked = [kind for kind in job.target.others for _ in range(2)]
                right = [a == b for a, b in zip(self.judge.kinds(made), asked, strict=True)]
                scores["style.obeyed"] = float(np.mean(right))
        return scores


def overall(scores: Mapping[str, float]) -> float:
    """What learning rate and steps are chosen by, the same for every method: alignment gained
    less leaks gained, alone and together."""
    gained = ("content.subject", "style.style", "both.subject", "both.style")
    return sum(scores[f"{name} lift"] for name in gained) - sum(
        scores[f"{name} lift"] for name in LEAKS
    )
