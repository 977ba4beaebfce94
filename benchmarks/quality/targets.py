"""Images that a user might bring: held-out individuals in held-out styles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mini_world.captions import article
from mini_world.world import CORE_KINDS, CORE_STYLES, Drawing, held_out_instance, portrait

if TYPE_CHECKING:
    from benchmarks.quality.scores import Referee

TOKEN = "sks"
SCENES = ("", "on a beach", "in a city", "in the snow")
SAMPLES = 16
VIEWS = 24  # drawings of which a reference is the mean


@dataclass(frozen=True)
class Target:
    """One image and what is known about it. number: of its individual and of its variant."""

    name: str
    kind: str
    style: str
    number: int

    def image(self) -> np.ndarray:
        """(128, 128, 3) uint8: what is trained on."""
        who = held_out_instance(self.kind, self.number)
        return portrait(who, self.style, 1_000_000 + self.number, self.number).draw()

    @property
    def subject(self) -> str:
        return f"{article(TOKEN)} {self.kind}"

    @property
    def others(self) -> list[str]:
        """Eight classes that the image does not show."""
        return [kind for kind in CORE_KINDS if kind != self.kind][:8]

    def drawn(self, style: str, variant: int | None = None) -> np.ndarray:
        """(16, 128, 128, 3): this individual in a style, or a style's variant, from new views."""
        who = held_out_instance(self.kind, self.number)
        number = 0 if variant is None else 1_000_000 + variant
        return _images(portrait(who, style, number, 3000 + n) for n in range(SAMPLES))

    def drawn_by_style(self) -> np.ndarray:
        """(16, 128, 128, 3): two other individuals of each other class in this variant."""
        return _images(
            portrait(held_out_instance(kind, 6000 + n), self.style, 1_000_000 + self.number, n)
            for kind in self.others
            for n in range(SAMPLES // len(self.others))
        )

    def content_reference(self, judge: Referee) -> Tensor:
        """(64,): this individual in many styles and views."""
        rng = np.random.default_rng((51, self.number))
        who = held_out_instance(self.kind, self.number)
        styles = [str(rng.choice(["", *CORE_STYLES])) for _ in range(VIEWS)]
        drawn = _images(portrait(who, style, n, 1000 + n) for n, style in enumerate(styles))
        return F.normalize(judge.content(drawn).mean(0), dim=0)

    def style_reference(self, judge: Referee) -> Tensor:
        """(64,): this variant of the style on many other things."""
        drawn = _images(
            portrait(
                held_out_instance(self.others[n % 8], 5000 + n),
                self.style,
                1_000_000 + self.number,
                2000 + n,
            )
            for n in range(VIEWS)
        )
        return F.normalize(judge.style(drawn).mean(0), dim=0)


def _images(drawn: Iterable[Drawing]) -> np.ndarray:
    return np.stack([image.draw() for image in drawn])


def _targets(part: str, rows: list[tuple[str, str]], first: int) -> tuple[Target, ...]:
    return tuple(
        Target(f"{part}{n}-{kind}-{style.replace(' ', '-')}", kind, style, first + n)
        for n, (kind, style) in enumerate(rows)
    )


# For every decision: learning rates, variants. More than are needed: gates.py leaves out those
# without headroom.
CHOOSING = _targets(
    "c",
    [
        ("cat", "knitted wool"),
        ("house", "riso print"),
        ("fish", "crayon drawing"),
        ("teapot", "ink wash"),
        ("rocket", "knitted wool"),
        ("car", "clay model"),
        ("penguin", "crayon drawing"),
        ("butterfly", "pointillism"),
        ("turtle", "clay model"),
        ("mushroom", "thermal image"),
    ],
    100,
)
# Touched by the final run only.
FINAL = _targets(
    "f",
    [
        ("penguin", "pointillism"),
        ("car", "gold engraving"),
        ("butterfly", "thermal image"),
        ("mushroom", "clay model"),
        ("rocket", "crayon drawing"),
        ("turtle", "knitted wool"),
        ("cat", "ink wash"),
        ("house", "riso print"),
        *(
            (kind, style)
            for style in ("knitted wool", "crayon drawing", "clay model", "pointillism")
            for kind in ("butterfly", "fish", "teapot", "car", "cat", "house")
        ),
    ],
    200,
)
PARTS = {"choose": CHOOSING, "final": FINAL}
WANTED = {"choose": 6, "final": 16}  # targets that pass the gates
