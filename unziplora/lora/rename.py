"""A LoRA file under another name: the same tensors, and a header that says the new name.

WebUIs call a LoRA by the name in its header (`ss_output_name`) as well as by its file's: two files
with one name there would keep each other from being found.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from unziplora import files as atomic
from unziplora.lora.tensor_file import read_metadata

_ALIGNED = 8  # bytes: a header's length is a multiple of it


def copy_renamed(path: Path, target: Path) -> None:
    """Writes `path` to `target`, whose stem its header then says in every place that had the old
    one. Raises WriteError, and InvalidInput where the name is taken by then; a file is whole or not
    there."""
    old, new = path.stem, target.stem
    metadata = read_metadata(path)
    for key in ("ss_output_name", "modelspec.title"):
        said = metadata.get(key, "")
        if said == old or said.startswith(f"{old} ("):
            metadata[key] = new + said[len(old) :]
    with path.open("rb") as source, atomic.writing(target, new=True) as temporary:
        header = json.loads(source.read(int.from_bytes(source.read(8), "little")))
        header["__metadata__"] = metadata
        said = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
        text = said.encode("utf-8", "replace")  # what it has of surrogates no program reads
        text += b" " * (-len(text) % _ALIGNED)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(source, file, 1 << 20)
