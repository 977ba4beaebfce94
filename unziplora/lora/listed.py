"""The names by which a WebUI's prompts find LoRAs: stems of files, wherever they lie below its
folder."""

from __future__ import annotations

import os
from pathlib import Path

from unziplora.errors import InvalidInput

_ENDS = (".safetensors", ".pt", ".ckpt")  # Automatic1111's extensions-builtin/Lora/networks.py:570


def listed_elsewhere(top: Path, folder: Path) -> dict[str, Path]:
    """By stem, the files below `top` that do not lie in `folder` itself; none where `folder` is not
    below `top`, where no prompt finds what is in it."""
    if not folder.resolve().is_relative_to(top.resolve()):
        return {}
    found = {}
    for root, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(root).resolve() != folder.resolve():
            for name in files:
                stem, end = os.path.splitext(name)
                if end.lower() in _ENDS:
                    found[stem] = Path(root) / name
    return found


def check_not_listed(stems: list[str], elsewhere: dict[str, Path]) -> None:
    """Raises InvalidInput for a stem of a file elsewhere: of two files of one stem a WebUI draws
    with the one that it lists last (Automatic1111's modules/util.py:33)."""
    for stem in stems:
        if stem in elsewhere:
            path = elsewhere[stem]
            raise InvalidInput(
                f"The folder {path.parent.name} of the WebUI's LoRAs has a file {path.name} "
                "already, and a prompt would find either. Choose another name."
            )
