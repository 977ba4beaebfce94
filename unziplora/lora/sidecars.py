"""What WebUIs read beside NAME.safetensors: a card in NAME.json and an image in NAME.png."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unziplora import files as atomic
from unziplora.errors import InvalidInput
from unziplora.lora.metadata import Header, LoraInfo

_CARD_SIDE = 512  # pixels


@dataclass(frozen=True)
class Card:
    """What a click on a LoRA's card shows and puts into the prompt."""

    description: str
    trigger: str
    notes: str


def write_side_files(
    path: Path, header: Header, image: Image.Image | None, *, replace: bool
) -> None:
    """The card and the image of a file of a pair; existing ones stay unless `replace`."""
    family = f" ({header.family})" if header.family else ""
    notes = (
        f"Method {header.method}, {header.steps} steps on {header.model_name}{family}, "
        f"pair {header.pair}."
    )
    card = Card(header.description, header.trigger, notes)
    write_card(path, card, image, replace=replace)


def merged_card(info: LoraInfo, names: Sequence[str], description: str) -> Card:
    """Of a merged file. names: of its parts. description: a sentence without its full stop."""
    return Card(f"{description}.", info.trigger or "", f"Merged from {', '.join(names)}.")


def write_card(
    path: Path, card: Card, image: Image.Image | None = None, *, replace: bool = False
) -> None:
    """NAME.json and, with an image, NAME.png beside `path`; existing ones stay unless `replace`.

    A click on the card puts `activation text` and the weight into the prompt (A1111
    extensions-builtin/Lora/ui_extra_networks_lora.py:44-54, ui_edit_user_metadata.py:59-68).
    Raises WriteError.
    """
    fields = {
        "description": card.description,
        "sd version": "SDXL",
        "activation text": card.trigger,
        "preferred weight": 1.0,
        "negative text": "",
        "notes": card.notes,
    }
    text = json.dumps(fields, indent=4, ensure_ascii=False) + "\n"
    with _side_file(path.with_suffix(".json"), replace=replace) as temporary:
        temporary.write_text(text, "utf-8")
    if image is None and replace:  # an older one is of another pair
        path.with_suffix(".png").unlink(missing_ok=True)
    if image is not None:
        small = image.convert("RGB")
        small.thumbnail((_CARD_SIDE, _CARD_SIDE))
        with _side_file(path.with_suffix(".png"), replace=replace) as temporary:
            small.save(temporary, "PNG")


@contextlib.contextmanager
def _side_file(path: Path, *, replace: bool) -> Iterator[Path]:
    """Where to write it; one that is there stays unless `replace`."""
    try:
        with atomic.writing(path, new=not replace) as temporary:
            yield temporary
    except InvalidInput:  # its name is taken
        if replace:
            raise
