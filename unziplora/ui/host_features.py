"""What a WebUI offers the page beyond its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class HostFeatures:
    """suggest, suggest_subject: words for an image's style, and for what it shows, by the WebUI's
    interrogator. to_prompt: JavaScript that is given a text and puts it into txt2img's prompt.
    images: by a button's label, JavaScript that gives the image to train on as a data URL, or an
    empty text where there is none. preview_every: steps, what the page proposes. preview_source:
    JavaScript that gives txt2img's settings as the values of the fields of previews."""

    suggest: Callable[[Image.Image], str] | None = None
    suggest_subject: Callable[[Image.Image], str] | None = None
    to_prompt: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    preview_every: int = 100
    preview_source: str | None = None
