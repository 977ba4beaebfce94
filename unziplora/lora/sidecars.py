"""What WebUIs read beside NAME.safetensors: a card in NAME.json and an image in NAME.png."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from unziplora import files as atomic
from unziplora.lora.metadata import Header

_CARD_SIDE = 512  # pixels


def write_side_files(path: Path, header: Header, image: Image.Image, *, replace: bool) -> None:
    """NAME.json and NAME.png beside `path`; existing ones stay unless `replace`.

    A click on the card puts `activation text` and the weight into the prompt (A1111
    extensions-builtin/Lora/ui_extra_networks_lora.py:44-54, ui_edit_user_metadata.py:59-68).
    """
    card = {
        "description": header.description,
        "sd version": "SDXL",
        "activation text": header.trigger,
        "preferred weight": 1.0,
        "negative text": "",
        "notes": f"Method {header.method}, {header.steps} steps on {header.model_name}, "
        f"pair {header.pair}.",
    }
    beside = path.with_suffix(".json")
    if replace or not beside.exists():
        atomic.write_text(beside, json.dumps(card, indent=4, ensure_ascii=False) + "\n")
    beside = path.with_suffix(".png")
    if replace or not beside.exists():
        small = image.convert("RGB")
        small.thumbnail((_CARD_SIDE, _CARD_SIDE))
        with atomic.writing(beside) as temporary:
            small.save(temporary, "PNG")
