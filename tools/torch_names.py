"""Which of torch's names the package uses, and whether the oldest torch that it supports has them.

    python tools/torch_names.py            names that are not in torch_names.txt
    python tools/torch_names.py --write    with torch 2.1 installed: writes torch_names.txt

Automatic1111 pins torch 2.1, and a module that imports a later name keeps the whole extension from
training there. CI's torch is newer: torch_names.txt, made where 2.1 is installed, stands in for it.
Methods of tensors and arguments of functions are not seen.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".txt")
CODE = ("unziplora", "scripts", "comfyui")
# asked for only where `hasattr` finds them
GUARDED = {"torch.amp.GradScaler", "torch.get_autocast_dtype"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    used = {name for path in sources() for name in names_in(path.read_text("utf-8"))} - GUARDED
    if parser.parse_args().write:
        if not importlib.metadata.version("torch").startswith("2.1."):
            parser.error("This torch is not 2.1. Install torch 2.1.2 on Python 3.10 first.")
        missing = sorted(name for name in used if not exists(name))
        LIST.write_text("".join(f"{name}\n" for name in sorted(used - set(missing))), "utf-8")
    else:
        missing = sorted(used - set(LIST.read_text("utf-8").split()))
    for name in missing:
        print(f"torch 2.1 has no {name}, as far as {LIST.name} knows.")
    return 1 if missing else 0


def sources() -> Iterator[Path]:
    for folder in CODE:
        yield from sorted((ROOT / folder).rglob("*.py"))


def names_in(source: str) -> set[str]:
    """Dotted names of torch in a module: what it imports, and what it reads of that."""
    tree = ast.parse(source)
    imported = dict(_imported(tree))
    found = {name for name in imported.values() if name != "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _dotted(node, imported)) is not None:
            found.add(name)
    return found


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module calls each thing of torch, and its name there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    yield alias.asname or "torch", alias.name if alias.asname else "torch"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.Attribute, imported: dict[str, str]) -> str | None:
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name) or inner.id not in imported:
        return None
    return ".".join([imported[inner.id], *parts])


def exists(name: str) -> bool:
    """In the torch that is installed."""
    found, path = importlib.import_module("torch"), "torch"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ImportError:
                return False
        found = getattr(found, part)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
