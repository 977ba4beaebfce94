"""Images that a user might bring: held-out individuals in held-out styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mini_world.captions import article
from mini_world.emoji import sets
from mini_world.emoji.things import Individual
from mini_world.emoji.world import CORE_STYLES, Artwork, held_out_individual, portrait

if TYPE_CHECKING:
    from benchmarks.quality.scores import Referee

TOKEN = "sks"
SCENES = ("", "on a beach", "in a city", "in the snow")
SAMPLES = 16
VIEWS = 24  # drawings of which a reference is the mean
# what styles are tried on: classes that the miniature draws plainly
OBJECTS = ("house", "car", "mushroom", "penguin", "sailboat", "bus", "apple", "balloon", "cat")
VARIANT = 1000  # of a style, from here on never trained on


@dataclass(frozen=True)
class Target:
    """One image and what is known about it. number: of its style's variant, and of its view."""

    name: str
    who: Individual
    style: str
    number: int

    @property
    def kind(self) -> str:
        return self.who.kind

    @property
    def variant(self) -> int:
        return VARIANT + self.number

    def image(self) -> np.ndarray:
        """(128, 128, 3) uint8: what is trained on."""
        return portrait(self.who, self.style, self.variant, self.number).draw()

    def mask(self) -> np.ndarray:
        """(128, 128) uint8: 255 where the image shows its subject, and 0 elsewhere."""
        return portrait(self.who, self.style, self.variant, self.number).mask()

    @property
    def subject(self) -> str:
        return f"{article(TOKEN)} {self.kind}"

    @property
    def others(self) -> list[str]:
        """Eight classes that the image does not show."""
        return [kind for kind in OBJECTS if kind != self.kind][:8]

    def drawn(self, style: str, variant: int | None = None) -> np.ndarray:
        """(16, 128, 128, 3): this individual in a style, or a style's variant, from new views.
        variant: as a target's number."""
        number = 0 if variant is None else VARIANT + variant
        return _images(portrait(self.who, style, number, 3000 + n) for n in range(SAMPLES))

    def drawn_by_style(self) -> np.ndarray:
        """(16, 128, 128, 3): two other individuals of each other class in this variant."""
        return _images(
            portrait(held_out_individual(kind, n), self.style, self.variant, n)
            for kind in self.others
            for n in range(SAMPLES // len(self.others))
        )

    def content_reference(self, judge: Referee) -> Tensor:
        """(d,): this individual in many styles and views."""
        rng = np.random.default_rng((51, self.number))
        styles = [str(rng.choice(["", *CORE_STYLES])) for _ in range(VIEWS)]
        drawn = _images(portrait(self.who, style, n, 1000 + n) for n, style in enumerate(styles))
        return F.normalize(judge.content(drawn).mean(0), dim=0)

    def style_reference(self, judge: Referee) -> Tensor:
        """(d,): this variant of the style on many other things."""
        drawn = _images(
            portrait(
                held_out_individual(self.others[n % 8], 2 + n // 8),
                self.style,
                self.variant,
                2000 + n,
            )
            for n in range(VIEWS)
        )
        return F.normalize(judge.style(drawn).mean(0), dim=0)


def check_drawings() -> None:
    """Ends the program where the sets that the images are made of are missing."""
    if missing := sets.missing():
        raise SystemExit(f"The benchmark draws its images itself. {missing}")


def _images(drawn: Iterable[Artwork]) -> np.ndarray:
    return np.stack([image.draw() for image in drawn])


def _targets(part: str, rows: list[tuple[str, str, int, str]], first: int) -> tuple[Target, ...]:
    return tuple(
        Target(
            f"{part}{n}-{kind}-{style.replace(' ', '-')}",
            Individual(kind, vendor, hue),
            style,
            first + n,
        )
        for n, (kind, vendor, hue, style) in enumerate(rows)
    )


# For every decision: learning rates, variants. More than are needed: gates.py leaves out those
# without headroom.
CHOOSING = _targets(
    "c",
    [
        ("mushroom", "twemoji", 3, "knitted textile"),
        ("car", "noto", 3, "crayon drawing"),
        ("house", "twemoji", 3, "clay sculpture"),
        ("penguin", "noto-v1", 3, "pointillist painting"),
        ("cat", "emojione", 3, "knitted textile"),
        ("sailboat", "noto", 3, "clay sculpture"),
        ("bus", "twemoji", 3, "crayon drawing"),
        ("apple", "noto", 3, "glitch art"),
        ("balloon", "twemoji", 3, "crayon drawing"),
        ("mushroom", "emojione", 6, "clay sculpture"),
        ("house", "fxemoji", 0, "knitted textile"),
        ("car", "emojione", 6, "pointillist painting"),
        ("bus", "noto", 3, "clay sculpture"),
        ("car", "twemoji", 3, "glitch art"),
        ("apple", "twemoji", 6, "clay sculpture"),
        ("balloon", "noto", 3, "glitch art"),
        ("house", "noto", 3, "pointillist painting"),
        ("penguin", "twemoji", 3, "clay sculpture"),
        ("balloon", "noto-v1", 6, "clay sculpture"),
        ("apple", "emojione", 3, "pointillist painting"),
    ],
    100,
)
# Touched by the final run only.
FINAL = _targets(
    "f",
    [
        (kind, vendor, hue, style)
        for style, (one, two) in {
            "clay sculpture": (0, 1),
            "crayon drawing": (1, 2),
            "knitted textile": (2, 3),
            "pointillist painting": (3, 0),
            "glitch art": (0, 2),
        }.items()
        for kind, people in {
            "mushroom": (("noto", 3), ("noto-v1", 3), ("fxemoji", 0), ("noto", 6)),
            "car": (("noto-v1", 3), ("fxemoji", 0), ("twemoji", 6), ("noto-v1", 6)),
            "house": (("noto-v1", 3), ("emojione", 3), ("noto", 6), ("fxemoji", 3)),
            "cat": (("noto", 3), ("twemoji", 3), ("fxemoji", 0), ("noto-v1", 6)),
            "sailboat": (("noto-v1", 3), ("fxemoji", 0), ("twemoji", 6), ("emojione", 3)),
            "bus": (("fxemoji", 0), ("emojione", 3), ("noto-v1", 3), ("twemoji", 6)),
        }.items()
        for vendor, hue in (people[one], people[two])
    ],
    200,
)
PARTS = {"choose": CHOOSING, "final": FINAL}
WANTED = {"choose": 6, "final": 16}  # targets that pass the gates


def prompts(condition: str, content: str, style: str, others: Sequence[str]) -> list[str]:
    """Sixteen: content in four scenes, style on eight other things, both in four scenes.

    content: what stands for the subject, "a sks cat"; style: "in clay sculpture style"; others:
    the other things' classes.
    """
    if condition == "style":
        return [f"{article(kind)} {style}" for kind in others for _ in range(2)]
    thing = content if condition == "content" else f"{content} {style}"
    return [f"{thing} {scene}".strip() for scene in SCENES for _ in range(SAMPLES // len(SCENES))]
