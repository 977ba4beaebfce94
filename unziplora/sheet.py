"""The figure of a pair: content in new scenes, style on other objects, both together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from unziplora.errors import BadInput
from unziplora.figure import Cell, Row, figure
from unziplora.hosts.standalone.generate import WeightedLora, loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.hosts.standalone.sampling import GUIDANCE
from unziplora.lora.read import read_metadata

SCENES = ("on a beach", "in the snow", "in a city", "at night")
SIDE = 256  # pixels of each picture on the page
OBJECTS = ("a house", "a fish", "a rocket", "a mushroom")


@dataclass(frozen=True)
class Words:
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
) -> Words:
    """The triggers that the files' headers say, or those given (keys content and style).

    Raises BadInput where neither says one.
    """
    found = {}
    for role, path in (("content", content), ("style", style)):
        trigger = (given or {}).get(role) or _trigger(path)
        if not trigger:
            raise BadInput(
                f"{path.name} does not say what calls it in a prompt. Say it with --{role}-trigger."
            )
        found[role] = trigger
    return Words(found["content"], found["style"], scenes or SCENES, objects or OBJECTS)


def sheet(
    host: StandaloneHost,
    content: Path,
    style: Path,
    words: Words,
    *,
    picture: Image.Image | None = None,
    weights: Sequence[float] = (1.0,),
    base: bool = False,
    size: tuple[int, int] | None = None,
    steps: int = 25,
    seed: int = 0,
    guidance: float = GUIDANCE,
    on_picture: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """The figure; its `info["notes"]` lists what was left out of the files.

    picture: the one trained on, shown first; weights: three rows for each; base: a row of what the
    model alone makes of the last prompts; size: (height, width); on_picture: told (made, total)
    after each picture. Raises BadInput for files that are no LoRAs of this model.
    """
    prompts = words.prompts()
    plan: list[tuple[str, list[str], list[WeightedLora]]] = []
    if base:
        plan.append(("the model alone", prompts["both"], []))
    for weight in weights:
        said = f", weight {weight:g}" if len(weights) > 1 or weight != 1 else ""
        pair = [(content, weight), (style, weight)]
        plan += [
            (f"content LoRA{said}", prompts["content"], pair[:1]),
            (f"style LoRA{said}", prompts["style"], pair[1:]),
            (f"both{said}", prompts["both"], pair),
        ]
    total, made = sum(len(texts) for _, texts, _ in plan), 0
    rows: list[Row] = []
    notes: dict[str, None] = {}
    height, width = size or (host.defaults.resolution, host.defaults.resolution)
    for heading, texts, loras in plan:
        cells = []
        with host.borrow(), loaded(host, loras) as left_out:
            notes.update(dict.fromkeys(left_out))
            for number, text in enumerate(texts):
                options: dict[str, Any] = {"steps": steps, "guidance": guidance}
                made_now = host.preview(
                    text, negative="", size=(height, width), seed=seed + number, **options
                )
                cells.append(Cell(made_now, text))
                made += 1
                if on_picture is not None:
                    on_picture(made, total)
        rows.append(Row(heading, cells))
    if picture is not None:
        first = rows[0]
        rows[0] = replace(first, cells=[Cell(picture, "the picture trained on"), *first.cells])
    page = figure(rows, side=SIDE)
    page.info["notes"] = list(notes)
    return page


def _trigger(path: Path) -> str | None:
    metadata = read_metadata(path)
    if phrase := metadata.get("modelspec.trigger_phrase"):
        return phrase
    try:
        arguments = json.loads(metadata.get("ss_network_args", "{}"))
        return str(arguments["trigger"])
    except (ValueError, KeyError, TypeError):
        return None


def _with_article(noun: str) -> str:
    return noun if noun.split()[0] in ("a", "an", "the") else f"a {noun}"
