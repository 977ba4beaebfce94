"""The figure of a pair: content in new scenes, style on other objects, both together.

It knows no host: whoever asks for it brings what draws a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.images.figure import Cell, Row, figure
from unziplora.lora.metadata import read_info

WeightedLora = tuple[Path, float]
# prompts, LoRAs with weights, the first one's seed -> an image for each prompt
Draw = Callable[[Sequence[str], Sequence[WeightedLora], int], Iterable[Image.Image]]

SCENES = ("on a beach", "in the snow", "in a city", "at night")
SIDE = 256  # pixels of each image on the page
OBJECTS = ("a house", "a fish", "a rocket", "a mushroom")


@dataclass(frozen=True)
class SheetPrompts:
    """What the figure's prompts say; triggers as in the files' headers."""

    content: str  # "sks cat"
    style: str  # "watercolor painting style"
    scenes: Sequence[str] = SCENES
    objects: Sequence[str] = OBJECTS

    def prompts(self) -> dict[str, list[str]]:
        """By row: content, style, both."""
        subject = _with_article(self.content)
        return {
            "content": [f"{subject} {scene}" for scene in self.scenes],
            "style": [f"{thing} in {self.style}" for thing in self.objects],
            "both": [f"{subject} in {self.style} {scene}" for scene in self.scenes],
        }


def words_of(
    content: Path,
    style: Path,
    given: dict[str, str | None] | None = None,
    *,
    scenes: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
) -> SheetPrompts:
    """The triggers that the files' headers say, or those given (keys content and style).

    Raises InvalidInput where neither says one.
    """
    found = {}
    for role, path in (("content", content), ("style", style)):
        trigger = (given or {}).get(role) or read_info(path).trigger
        if not trigger:
            raise InvalidInput(
                f"{path.name} does not say what calls it in a prompt. Say it with --{role}-trigger."
            )
        found[role] = trigger
    return SheetPrompts(found["content"], found["style"], scenes or SCENES, objects or OBJECTS)


def sheet(
    draw: Draw,
    content: Path,
    style: Path,
    words: SheetPrompts,
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
    prompts = words.prompts()
    plan: list[tuple[str, list[str], list[WeightedLora]]] = []
    if base:
        plan.append(("the model alone", prompts["both"], []))
    for weight in weights:
        own = weight if isinstance(weight, tuple) else (weight, weight)
        plain = len(weights) == 1 and own == (1.0, 1.0)
        for heading, row, loras in (
            ("content LoRA", "content", [(content, own[0])]),
            ("style LoRA", "style", [(style, own[1])]),
            ("both", "both", [(content, own[0]), (style, own[1])]),
        ):
            said = " and ".join(dict.fromkeys(f"{weight:g}" for _, weight in loras))
            plan.append((heading if plain else f"{heading}, weight {said}", prompts[row], loras))
    total = sum(len(texts) for _, texts, _ in plan)
    rows: list[Row] = []
    made = 0
    for heading, texts, loras in plan:
        cells = []
        for text, drawn in zip(texts, draw(texts, loras, seed), strict=True):
            cells.append(Cell(drawn, text))
            made += 1
            if on_image is not None:
                on_image(made, total)
        rows.append(Row(heading, cells))
    if image is not None:
        first = rows[0]
        rows[0] = replace(first, cells=[Cell(image, "the image trained on"), *first.cells])
    return figure(rows, side=SIDE)


def _with_article(noun: str) -> str:
    return noun if noun.split()[0] in ("a", "an", "the") else f"a {noun}"
