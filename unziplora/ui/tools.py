"""What a WebUI offers the page beyond its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Tools:
    """suggest: style words for a picture, by the WebUI's interrogator. to_prompt: JavaScript that
    is given a text and puts it into txt2img's prompt. pictures: by a button's label, JavaScript
    that gives the picture to train on as a data URL, or an empty text where there is none.
    preview_every: steps, what the page proposes."""

    suggest: Callable[[Image.Image], str] | None = None
    to_prompt: str | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    preview_every: int = 100
