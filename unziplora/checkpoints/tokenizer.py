"""CLIP's tokenizer from a folder, checked: one that reads every prompt alike gives no error."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from unziplora.errors import InvalidInput

OWN = Path(__file__).parent / "clip_tokenizer"
# Words of one token and of several, upper case, numbers, signs: each needs its files whole.
_PROBES = ("a photograph of an astronaut", "watercolour, 3 Foxes?", "sks")
_log = logging.getLogger(__name__)


@lru_cache(maxsize=4)  # reading one takes longer than encoding a prompt with it
def load_tokenizer(folder: Path, model: str, **options: Any) -> Any:
    """Reads words as CLIP does, and is shared: nothing may be set on it. model: what it belongs to,
    as the user sees it.

    Raises InvalidInput for a folder that does not: its files are missing, cut off, or only pointers
    to files.
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, **options)
        same = _read(tokenizer) == _expected()
    except Exception as error:  # the library raises what it likes on damaged files
        _log.info("The tokenizer in %s: %r", folder, error)
        same = False
    if not same:
        raise InvalidInput(
            f"The folder {folder.name} of {model} does not read words as SDXL's tokenizer does, so "
            "every prompt would mean something else. Download its files again: vocab.json, "
            "merges.txt and tokenizer_config.json."
        )
    return tokenizer


def _read(tokenizer: Any) -> list[list[int]]:
    return [list(tokenizer(text).input_ids) for text in _PROBES]


@lru_cache(maxsize=1)
def _expected() -> list[list[int]]:
    return _read(CLIPTokenizer.from_pretrained(str(OWN), local_files_only=True))
