"""Which file a MODEL was loaded from: a patcher does not know it, the workflow does."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from unziplora.checkpoints.hints import family_in
from unziplora.host import ModelIdentity
from unziplora.lora.tensor_file import read_metadata

UNKNOWN = "unknown model"
_LOADERS = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models"}  # their inputs; folders
_MOST_HOPS = 100


def model_file(prompt: Mapping[str, Any] | None, node: str | None) -> Path | None:
    """The checkpoint at the other end of a node's MODEL input, through whatever lies in between;
    None where no loader with a file's name is found.

    prompt: a workflow in API format, nodes by id; node: whose input it is.
    """
    seen: set[str] = set()
    while prompt is not None and node is not None and len(seen) < _MOST_HOPS:
        inputs = prompt.get(node, {}).get("inputs", {})
        for name, folder in _LOADERS.items():
            if isinstance(inputs.get(name), str):
                return _path(folder, inputs[name])
        seen.add(node)
        link = inputs.get("model")
        node = str(link[0]) if isinstance(link, list) and link else None
        if node in seen:
            return None
    return None


def _path(folder: str, name: str) -> Path | None:
    path = importlib.import_module("folder_paths").get_full_path(folder, name)
    return None if path is None else Path(path)


def identity(file: Path | None) -> ModelIdentity:
    """Name and sha256 of a checkpoint; of one that is not known, a name that says so."""
    if file is None or not file.is_file():
        return ModelIdentity(UNKNOWN)
    state = file.stat()
    digest = _sha256(file, state.st_size, state.st_mtime_ns)
    return ModelIdentity(file.name, digest, family_in(file.name))


def header(file: Path | None) -> Mapping[str, str]:
    """What a checkpoint's file says of itself; nothing where it is not known."""
    return {} if file is None else read_metadata(file)


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, changed: int) -> str:
    """Once for each state of a file: SDXL's takes seconds."""
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while block := opened.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
