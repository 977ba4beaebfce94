"""Scores of a pair's images against the image trained on, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from PIL import Image

from unziplora.scores.encoders import Aspect, Encoder

# condition -> aspects; a LoRA's own aspect is its alignment, the other's its leak (Table 2)
CONDITIONS: Mapping[str, tuple[Aspect, ...]] = {
    "content": ("subject", "style"),
    "style": ("style", "subject"),
    "both": ("subject", "style"),
}
LEAKS = ("content.style", "style.subject")
LEGEND = (
    "Measures are LORAS.ASPECT: images drawn with these LoRAs against the training image, as "
    "cosines (1 is equal). A leak is better low."
)


@dataclass(frozen=True)
class Mean:
    """value with its standard error over n samples (nan for one)."""

    value: float
    error: float
    n: int

    def __str__(self) -> str:
        value = round(self.value, 3) + 0.0  # never -0.000
        return f"{value:.3f}" if math.isnan(self.error) else f"{value:.3f} ± {self.error:.3f}"


def similarities(
    encoder: Encoder, reference: Image.Image, images: Mapping[str, Sequence[Image.Image]]
) -> dict[str, list[float]]:
    """Cosines with the reference, sample by sample, as "dino content.subject".

    images: by condition (CONDITIONS). Aspects that the encoder does not know are left out.
    """
    target = encoder([reference])
    found = {}
    for condition, samples in images.items():
        vectors = encoder(samples)
        for aspect in CONDITIONS[condition]:
            if aspect in vectors:
                cosines = vectors[aspect] @ target[aspect][0]
                found[f"{encoder.name} {condition}.{aspect}"] = [float(c) for c in cosines]
    return found


def is_leak(measure: str) -> bool:
    """measure: as "dino content.style"."""
    return measure.split()[-1] in LEAKS


def shown(measure: str) -> str:
    """Its name in tables."""
    return f"{measure} (leak)" if is_leak(measure) else measure


def summary(values: Sequence[float]) -> Mean:
    """Mean and standard error."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Mean(mean(values), error, len(values))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Mean:
    """ours less theirs, paired by prompt and seed. Raises ValueError for unequal numbers."""
    return summary([a - b for a, b in zip(ours, theirs, strict=True)])
