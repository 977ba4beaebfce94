"""Two LoRAs made one file by each way of merging, to compare their images with those of a pair."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from unziplora.host import Host
from unziplora.lora.merge import merge
from unziplora.lora.merge_methods import find_merge_method
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
