"""What the page shows of finished pairs and unfinished runs, as HTML, and the prompt they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from unziplora.lora.pair import Pair
from unziplora.ui.run_html import button, data_url

USES = ("both", "content", "style")


def pairs(found: Sequence[Pair]) -> str:
    """A card for each pair: its images, what calls it, and buttons that put it into a prompt."""
    if not found:
        return '<div class="uz-quiet">No pair yet. What you train will be here.</div>'
    return f'<div class="uz-cards">{"".join(_card(pair) for pair in found)}</div>'


def _card(pair: Pair) -> str:
    images = "".join(
        f"<figure>{_image(file.with_suffix('.png'), f'{role} of {pair.name}')}"
        f"<figcaption>{role}: {escape(trigger)}</figcaption></figure>"
        for role, file, trigger in (
            ("content", pair.content, pair.content_trigger),
            ("style", pair.style, pair.style_trigger),
        )
    )
    made = f"{pair.method}, {pair.steps} steps, {pair.model}"
    buttons = "".join(
        button(use.capitalize(), "use", {"use": use, "name": pair.name},
               f"put {use} of {pair.name} into the prompt")
        for use in USES
    )  # fmt: skip
    return (
        f'<article class="uz-card"><h4>{escape(pair.name)}</h4>'
        f'<div class="uz-two">{images}</div><p class="uz-aside">{escape(made)}</p>'
        f'<div class="uz-buttons"><span>Prompt:</span>{buttons}</div></article>'
    )


def _image(path: Path, spoken: str) -> str:
    url = data_url(path)
    return f'<img src="{url}" alt="{escape(spoken)}">' if url else '<div class="uz-blank"></div>'


def runs(names: Mapping[str, Path]) -> str:
    """Runs that have not ended and can go on; by name, the image that each was trained on."""
    if not names:
        return ""
    rows = "".join(
        f"<li>{_image(image, f'image of {name}')}<b>{escape(name)}</b>"
        + button("Resume", "results", {"do": "resume", "name": name}, f"resume {name}")
        + button("Delete", "results", {"do": "delete", "name": name}, f"delete the run {name}")
        + "</li>"
        for name, image in names.items()
    )
    return (
        '<div class="uz-title">Unfinished runs <span>they go on where they stopped</span></div>'
        f'<ul class="uz-rows uz-runs">{rows}</ul>'
    )


def prompt(pair: Pair, use: str, content: float, style: float) -> str:
    """What goes into a prompt: trigger words and calls of both LoRAs, or of one; a weight of 0
    leaves one out."""
    content = content if use in ("both", "content") else 0
    style = style if use in ("both", "style") else 0
    words, calls = [], []
    if content:
        words.append(f"a {pair.content_trigger}")
        calls.append(f"<lora:{pair.content.stem}:{content:g}>")
    if style:
        words.append(f"in {pair.style_trigger}" if content else f"an image in {pair.style_trigger}")
        calls.append(f"<lora:{pair.style.stem}:{style:g}>")
    return " ".join([*words, *calls])
