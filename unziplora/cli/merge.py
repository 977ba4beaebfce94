"""`unziplora merge`: one LoRA file of several."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.lora.merge_methods import DEFAULT_MU, MERGE_METHODS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE[:WEIGHT]", help="of np: the content, then the style")
    methods = "; ".join(f"{m.name}: {m.summary}" for m in MERGE_METHODS.values())
    add("--how", default="add", metavar="METHOD", help=f"{methods} (add)")
    mu = f"of np, from 0 (add): how far the content gives way ({DEFAULT_MU:g})"
    add("--mu", type=float, default=DEFAULT_MU, help=mu)
    add("--out", type=Path, required=True, metavar="FILE")


def merge(parts: Sequence[tuple[Path, float]], arguments: argparse.Namespace) -> int:
    """parts: files and their weights."""
    from unziplora.lora.merge import merge as merge_files

    path: Path = arguments.out
    if path.suffix.lower() != ".safetensors":
        raise InvalidInput(f"{path.name} does not end in .safetensors. Name such a file.")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"There is no folder {path.parent}. Make it, or name another.")
    saved = merge_files(path, parts, how=arguments.how, mu=arguments.mu)
    print(f"{saved.path} ({saved.layers} layers)")
    return 0
