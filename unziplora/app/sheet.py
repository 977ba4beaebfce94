"""The figure of a pair: content in new scenes, style on other objects, both together.

It knows no host: the caller brings what draws a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.images.figure import Cell, Row, figure
from unziplora.lora.metadata import read_info
from unziplora.method.prompts import with_article

WeightedLora = tuple[Path, float]
# prompts, LoRAs with weights, the first one's seed -> an image for each prompt
Draw = Callable[[Sequence[str], Sequence[WeightedLora], int], Iterable[Image.Image]]

SCENES = ("on a beach", "in the snow", "in a city", "at night")
SIDE = 256  # pixels of each image on the page
OBJECTS = ("a house", "a fish", "a rocket", "a mushroom")
GRID = (0.4, 0.7, 1.0, 1.3)  # weights of a grid


@dataclass(frozen=True)
class WeightGrid:
    """images: by (weight of the content, weight of the style), each of `weights` with each."""

    weights: tuple[float, ...]
    images: Mapping[tuple[float, float], Image.Image]


@dataclass(frozen=True)
class SheetPrompts:
    """What the figure's prompts say; triggers as in the files' headers."""

    content: str  # "sks cat"
    style: str  # "watercolor painting style"
    scenes: Sequence[str] = SCENES
    objects: Sequence[str] = OBJECTS

    def by_row(self) -> dict[str, list[str]]:
        """Rows: content, style, both."""
        subject = with_article(self.content)
        return {
            "content": [f"{subject} {scene}" for scene in self.scenes],
            "style": [f"{thing} in {self.style}" for thing in self.objects],
            "both": [f"{subject} in {self.style} {scene}" for scene in self.scenes],
        }


def sheet_prompts(
    content: Path,
    style: Path,
    triggers: Mapping[str, str | None] | None = None,
    *,
    scenes: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
) -> SheetPrompts:
    """triggers: by role (content, style), in place of those in the files' headers.

    Raises InvalidInput where neither has one.
    """
    found = {}
    for role, path in (("content", content), ("style", style)):
        trigger = (triggers or {}).get(role) or read_info(path).trigger
        if not trigger:
            raise InvalidInput(
                f"{path.name} does not say which words trigger it in a prompt. "
                f"Name them with --{role}-trigger."
            )
        found[role] = trigger
    return SheetPrompts(found["content"], found["style"], scenes or SCENES, objects or OBJECTS)


@dataclass(frozen=True)
class _Plan:
    """A row that is still to be drawn."""

    heading: str
    prompts: Sequence[str]
    loras: Sequence[WeightedLora] = ()


def sheet(
    draw: Draw,
    content: Path,
    style: Path,
    prompts: SheetPrompts,
    *,
    image: Image.Image | None = None,
    weights: Sequence[float | tuple[float, float]] = (1.0,),
    base: bool = False,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """The figure.

    image: the one trained on, shown first; weights: three rows for each, of both LoRAs or of
    (content, style); base: a row of what the model alone makes of the last prompts; seed: of the
    first image of each row, the next has the next; on_image: called with (drawn, total) after each
    image.
    """
    pairs = [own if isinstance(own, tuple) else (own, own) for own in weights]
    texts = prompts.by_row()
    plans = [_Plan("the model alone", texts["both"])] if base else []
    for pair in pairs:
        loras = [(content, pair[0]), (style, pair[1])]
        plans += _rows_of(loras, texts, show_weights=pairs != [(1.0, 1.0)])
    rows = list(_drawn(draw, plans, seed, on_image or (lambda drawn, total: None)))
    if image is not None:
        first = rows[0]
        rows[0] = replace(first, cells=[Cell(image, "the image trained on"), *first.cells])
    return figure(rows, side=SIDE)


def _rows_of(
    pair: Sequence[WeightedLora], texts: Mapping[str, Sequence[str]], *, show_weights: bool
) -> Iterator[_Plan]:
    """Content alone, style alone, both."""
    for row, heading, loras in (
        ("content", "content LoRA", pair[:1]),
        ("style", "style LoRA", pair[1:]),
        ("both", "both", pair),
    ):
        weights = " and ".join(dict.fromkeys(f"{weight:g}" for _, weight in loras))
        yield _Plan(f"{heading}, weight {weights}" if show_weights else heading, texts[row], loras)


def _drawn(
    draw: Draw, plans: Sequence[_Plan], seed: int, on_image: Callable[[int, int], None]
) -> Iterator[Row]:
    total, count = sum(len(plan.prompts) for plan in plans), 0
    for plan in plans:
        cells = []
        for prompt, image in zip(plan.prompts, draw(plan.prompts, plan.loras, seed), strict=True):
            cells.append(Cell(image, prompt))
            count += 1
            on_image(count, total)
        yield Row(plan.heading, cells)


def four_images(
    draw: Draw, content: Path, style: Path, prompts: SheetPrompts, weights: tuple[float, float],
    seed: int = 0,
) -> Image.Image:  # fmt: skip
    """A first look at a content with a style: each alone, both, and both in another scene."""
    both, texts = [(content, weights[0]), (style, weights[1])], prompts.by_row()
    subject = with_article(prompts.content)
    plans = [
        _Plan("", [subject], both[:1]),
        _Plan("", texts["style"][:1], both[1:]),
        _Plan("", [f"{subject} in {prompts.style}", texts["both"][0]], both),
    ]
    rows = _drawn(draw, plans, seed, lambda drawn, total: None)
    heading = "content, style, both, both in another scene"
    return figure([Row(heading, [cell for row in rows for cell in row.cells])], side=SIDE)


def weight_grid(
    draw: Draw, content: Path, style: Path, prompts: SheetPrompts, weights: Sequence[float] = GRID,
    seed: int = 0,
) -> WeightGrid:  # fmt: skip
    """Both LoRAs at each pair of weights, from one prompt and seed."""
    prompt = f"{with_article(prompts.content)} in {prompts.style}"
    images = {}
    for one, other in itertools.product(weights, repeat=2):
        (images[one, other],) = draw([prompt], [(content, one), (style, other)], seed)
    return WeightGrid(tuple(weights), images)
