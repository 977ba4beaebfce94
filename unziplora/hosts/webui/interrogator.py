"""Words for an image, by the interrogator that Automatic1111 and Forge have.

File and line numbers are those of Automatic1111 1.10.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from PIL import Image

from unziplora.errors import UnZipLoRAError
from unziplora.hosts.webui.txt2img import webui

_FAILED = "<error>"  # what it says of every failure (modules/interrogate.py:220)
_CATEGORY = "mediums"  # its list of "a watercolor painting", "pixel art", ...
_RANKED = re.compile(r"\((.*):[\d.]+\)")  # by its option "Include ranks of model tags" (:210)


_HOW = frozenset(
    (
        "painting",
        "drawing",
        "picture",
        "photo",
        "photograph",
        "image",
        "illustration",
        "portrait",
        "up",
    )
)
_NOUN_ENDS = frozenset(("with", "on", "in", "of", "at", "by", "and", "is", "are", "that", "who"))


def style_words(image: Image.Image) -> str:
    """Waits for the WebUI's queue. Raises UnZipLoRAError where the interrogator fails (it downloads
    its models when it is first used) or says nothing of a style."""
    return medium_in(*_said_of(image))


def subject_word(image: Image.Image) -> str:
    """The same of what the image shows."""
    return subject_in(_said_of(image)[0])


def _said_of(image: Image.Image) -> tuple[str, Collection[str]]:
    """What the interrogator says, and the media that it knows."""
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
            "it is first used. Type the words yourself."
        )
    return said, known


def subject_in(said: str) -> str:
    """The noun that a caption begins with: "fox" of "a painting of a red fox sitting in snow, by
    X". Raises UnZipLoRAError where there is none."""
    words = said.partition(", ")[0].lower().split()
    if "of" in words and not _HOW.isdisjoint(words[: words.index("of")]):
        words = words[words.index("of") + 1 :]
    noun = ""
    for word in words:
        if word in _NOUN_ENDS or (noun and word.endswith("ing")):
            break
        noun = word if word not in ("a", "an", "the") else noun
    if not noun.isalpha():
        raise UnZipLoRAError(
            "The WebUI's interrogator says nothing of what this image shows. Type the subject "
            "yourself."
        )
    return noun


def medium_in(said: str, known: Collection[str]) -> str:
    """The medium among what an interrogator says ("a cat, by X, a watercolor painting", perhaps as
    "(a watercolor painting:0.259)"), without its article. Raises UnZipLoRAError where there is
    none."""
    for part in said.split(", ")[1:]:  # the first is the caption
        ranked = _RANKED.fullmatch(part)
        medium = ranked[1] if ranked else part
        if medium in known:
            article, _, rest = medium.partition(" ")
            return rest if article in ("a", "an") else medium
    raise UnZipLoRAError(
        "The WebUI's interrogator says nothing of how this image is made. Type the style words "
        "yourself."
    )
