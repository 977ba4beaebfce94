"""How an image was made, in the words that WebUIs write into a PNG and read again ("infotext")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unziplora.files import encodable

KEY = "parameters"  # of Image.info, and of the PNG's text


def infotext(prompt: str, negative: str, words: Mapping[str, object]) -> str:
    """words: as "Steps" and "Seed"; "Steps" is the first, which tells where the prompt ends."""
    below = f"Negative prompt: {negative}\n" if negative else ""
    return f"{prompt}\n{below}" + ", ".join(f"{word}: {value}" for word, value in words.items())


def with_loras(text: str, loras: Sequence[tuple[str, float]]) -> str:
    """The same, with calls of LoRAs (name and weight) at the end of its prompt."""
    found = re.search(r"\n(Negative prompt|Steps): ", text)
    end = found.start() if found else len(text)
    calls = "".join(f" <lora:{name}:{weight:g}>" for name, weight in loras)
    return text[:end] + calls + text[end:]


def save_png(image: Image.Image, path: Path) -> None:
    """With how it was made, where that is known."""
    text = PngInfo()
    if known := image.info.get(KEY):
        text.add_text(KEY, encodable(known))
    image.save(path, "PNG", pnginfo=text)
