"""What the page shows of finished pairs and unfinished runs, as HTML, and the prompt they give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from unziplora.app.library import StoredRun
from unziplora.errors import InvalidInput
from unziplora.lora.pair import Pair
from unziplora.ui.html import button, image

USES = ("both", "content", "style")
SORTS = ("newest first", "name")
# of a card's menu: by what a button requests, its label
MENU: Mapping[str, str] = {
    "sheet": "Draw sheet",
    "grid": "Weight grid",
    "publish": "Publish",
    "rename": "Rename",
    "steps": "Earlier steps",
    "train more": "Train more",
    "start": "Start from this",
    "open": "Open folder",
    "delete": "Delete",
}
DRAWN = ("sheet", "grid")  # which take minutes


def select(found: Sequence[Pair], search: str, sort: str) -> list[Pair]:
    """The pairs whose name or words contain each word of the search, in the chosen order. found:
    the newest first."""
    wanted = (search or "").lower().split()
    kept = [pair for pair in found if all(word in _searched(pair) for word in wanted)]
    return sorted(kept, key=lambda pair: pair.name.lower()) if sort == "name" else kept


def _searched(pair: Pair) -> str:
    texts = (pair.name, pair.content_trigger, pair.style_trigger, pair.method, pair.model)
    return " ".join(texts).lower()


def pairs(shown: Sequence[Pair], total: int, can_draw: bool, can_open: bool = False) -> str:
    """A card for each pair. total: of pairs in the output folder. can_draw, can_open: whether this
    program draws sheets, and its computer shows folders."""
    if not total:
        return '<div class="uz-quiet">No pair yet. What you train will be here.</div>'
    if not shown:
        return '<div class="uz-quiet">No pair fits the search. Clear it to see all.</div>'
    left_out = {"sheet": not can_draw, "grid": not can_draw, "open": not can_open}
    entries = [do for do in MENU if not left_out.get(do)]
    cards = "".join(_card(pair, entries) for pair in shown)
    return f'<div class="uz-cards">{cards}</div>'


def _card(pair: Pair, entries: Sequence[str]) -> str:
    images = "".join(
        f"<figure>{image(file.with_suffix('.png'), f'{role} of {pair.name}')}"
        f"<figcaption>{role}: {escape(trigger)}</figcaption></figure>"
        for role, file, trigger in (
            ("content", pair.content, pair.content_trigger),
            ("style", pair.style, pair.style_trigger),
        )
    )
    made = f"{pair.method}, {pair.steps} steps, {pair.model}"
    uses = "".join(
        button(use.capitalize(), "use", {"use": use, "name": pair.name},
               f"put {use} of {pair.name} into the prompt")
        for use in USES
    )  # fmt: skip
    menu = "".join(_entry(do, pair.name) for do in entries)
    return (
        f'<article class="uz-card"><h4>{escape(pair.name)}</h4>'
        f'<div class="uz-two">{images}</div><p class="uz-aside">{escape(made)}</p>'
        f'<div class="uz-buttons"><span>Prompt:</span>{uses}</div>'
        f'<details class="uz-menu"><summary aria-label="more for {escape(pair.name)}">More'
        f'</summary><div class="uz-buttons">{menu}</div></details></article>'
    )


def _entry(do: str, name: str) -> str:
    to = "start" if do == "start" else "draw" if do in DRAWN else "card"
    label = MENU[do]
    return button(
        label, to, {"do": do, "name": name}, f"{label.lower()}: {name}",
        open_tab="Train" if do == "start" else None,
        kind="uz-here-only" if do == "open" else "",
    )  # fmt: skip


def runs(found: Sequence[StoredRun]) -> str:
    """Runs that have not ended well: those with a state can be resumed, others only be started
    again."""
    if not found:
        return ""
    return (
        '<div class="uz-title">Unfinished runs <span>resumed from their saved state, or started '
        f'again</span></div><ul class="uz-rows uz-runs">{"".join(map(_run_row, found))}</ul>'
    )


def _run_row(run: StoredRun) -> str:
    name = run.name
    saved = "no saved state" if not run.has_state else f"state of step {run.step}"
    do = ("Resume", "resume") if run.has_state else ("Start again", "restart")
    return (
        f"<li>{image(run.image, f'image of {name}')}<b>{escape(name)}</b><span>{saved}</span>"
        + button(do[0], "results", {"do": do[1], "name": name}, f"{do[0].lower()}: {name}")
        + button("Delete", "results", {"do": "delete", "name": name}, f"delete the run {name}")
        + "</li>"
    )


def weights_of(use: str, content: float, style: float) -> tuple[float, float]:
    """The weights of both LoRAs where both, or one of them, are used."""
    return (content if use in ("both", "content") else 0.0,
            style if use in ("both", "style") else 0.0)  # fmt: skip


def weights_in(request: Mapping[str, Any]) -> tuple[float, float] | None:
    """The weights of content and style that a request names; None where it names none. Raises
    InvalidInput."""
    if "content" not in request and "style" not in request:
        return None
    content, style = (request.get(role) for role in ("content", "style"))
    if not (_is_weight(content) and _is_weight(style)):
        raise InvalidInput("The weights are no numbers. Reload the page.")
    return float(content), float(style)  # type: ignore[arg-type]


def _is_weight(value: Any) -> bool:
    return type(value) in (int, float) and -100 <= value <= 100


def prompt(pair: Pair, use: str, content: float, style: float) -> str:
    """Trigger words and calls of both LoRAs, or of one; a weight of 0 leaves one out."""
    content, style = weights_of(use, content, style)
    words, calls = [], []
    if content:
        words.append(f"a {pair.content_trigger}")
        calls.append(f"<lora:{pair.content.stem}:{content:g}>")
    if style:
        words.append(f"in {pair.style_trigger}" if content else f"an image in {pair.style_trigger}")
        calls.append(f"<lora:{pair.style.stem}:{style:g}>")
    return " ".join([*words, *calls])


def prompt_edit(pair: Pair, use: str, content: float, style: float, *, toggle: bool) -> str:
    """What javascript/unziplora.js edits a prompt with, as JSON (docs/ui-protocol.md)."""
    content, style = weights_of(use, content, style)
    edit = {
        "content": _edit(pair.content, pair.content_trigger, content),
        "style": _edit(pair.style, pair.style_trigger, style),
        "toggle": toggle,
    }
    return json.dumps(edit)


def _edit(file: Path, trigger: str, weight: float) -> dict[str, str | float]:
    return {"name": file.stem, "trigger": trigger, "weight": float(f"{weight:g}")}
