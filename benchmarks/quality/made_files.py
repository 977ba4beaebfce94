"""Files that are made of trained ones, for the images that they draw: merged, or a part of one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unziplora.host import Host
from unziplora.lora.merge import merge
from unziplora.lora.merge_methods import find_merge_method
from unziplora.lora.read import read_lora
from unziplora.lora.split import layers_in
from unziplora.lora.write import save_modules
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.ziplora.merging import ZipMerge


@contextlib.contextmanager
def merged(host: Host, files: Mapping[BranchName, Path], how: str) -> Iterator[Path]:
    """One file of a content and a style, there for the block. how: of MERGE_METHODS; its settings
    are the defaults, and what learns does it on the host's model."""
    parts = [(files[role], 1.0) for role in BRANCHES]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.safetensors"
        if find_merge_method(how).learns:
            for _ in ZipMerge(path, parts).on(host):
                pass
        else:
            merge(path, parts, how=how)
        yield path


@contextlib.contextmanager
def limited(path: Path, groups: Sequence[str]) -> Iterator[Path]:
    """A LoRA's file with its layers in these attention groups only, there for the block."""
    file = read_lora(path)
    layers = layers_in(file, groups)
    shapes = {n: (*one.up.shape[:1], *one.down.shape[1:]) for n, one in layers.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        save_modules(made, layers, file.metadata, shapes=shapes, new=True)
        yield made
