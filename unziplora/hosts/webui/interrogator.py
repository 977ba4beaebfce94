"""Style words for an image, by the interrogator that Automatic1111 and Forge have.

File and line numbers are those of Automatic1111 1.10.1.
"""

from __future__ import annotations

from collections.abc import Collection

from PIL import Image

from unziplora.errors import UnZipLoRAError
from unziplora.hosts.webui.txt2img import webui

_FAILED = "<error>"  # what it says of every failure (modules/interrogate.py:220)
_CATEGORY = "mediums"  # its list of "a watercolor painting", "pixel art", ...


def style_words(image: Image.Image) -> str:
    """Waits for the WebUI's queue. Raises UnZipLoRAError where the interrogator fails (it downloads
    its models when it is first used) or says nothing of a style."""
    interrogator = webui("shared").interrogator
    with webui("call_queue").queue_lock:
        said = interrogator.interrogate(image.convert("RGB"))
        known = {
            item
            for category in interrogator.categories()
            if category.name == _CATEGORY
            for item in category.items
        }
    if _FAILED in said:
        raise UnZipLoRAError(
            "The WebUI's interrogator failed; its console says why, and it needs the internet when "
            "it is first used. Type the style words yourself."
        )
    return medium_in(said, known)


def medium_in(said: str, known: Collection[str]) -> str:
    """The medium among what an interrogator says ("a cat, by X, a watercolor painting"), without
    its article. Raises UnZipLoRAError where there is none."""
    for part in said.split(", ")[1:]:  # the first is the caption
        if part in known:
            article, _, rest = part.partition(" ")
            return rest if article in ("a", "an") else part
    raise UnZipLoRAError(
        "The WebUI's interrogator says nothing of how this image is made. Type the style words "
        "yourself."
    )
