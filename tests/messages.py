"""Every message of our error classes, as the code has it, with … where something is filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CLASSES = {
    "InvalidInput", "NotFound", "UnZipLoRAError", "TrainingFailed", "WriteError", "ModelDamaged",
}  # fmt: skip
PACKAGE = Path(__file__).parent.parent / "unziplora"


def messages() -> dict[str, str]:
    """By message, the file that raises it. A message whose text is made by a function or named by
    a variable is followed to where it stands."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    found: dict[str, str] = {}
    for path, tree in trees.items():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            if call.func.id in CLASSES:
                for text in _texts(call.args[0], path, trees):
                    found.setdefault(text, path.relative_to(PACKAGE).as_posix())
    return found


def _texts(node: ast.expr, path: Path, trees: dict[Path, ast.Module]) -> Iterator[str]:
    if isinstance(node, (ast.Constant, ast.JoinedStr)):
        if text := _text(node):
            yield re.sub(r"…(\S?…)+", "…", text)
        return
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body, path, trees)
        yield from _texts(node.orelse, path, trees)
        return
    name = node.func if isinstance(node, ast.Call) else node
    if isinstance(node, ast.Call) and getattr(name, "id", "") in CLASSES:
        yield from _texts(node.args[0], path, trees)
        return
    assert isinstance(name, ast.Name), f"{path.name}: {ast.unparse(node)} cannot be followed"
    followed = [text for source in _meant(name.id, path, trees)
                for text in _texts(source, path, trees)]  # fmt: skip
    assert followed, f"{path.name}: where {name.id} comes from was not found"
    yield from followed


def _meant(name: str, path: Path, trees: dict[Path, ast.Module]) -> list[ast.expr]:
    """What a function of this name returns, or a variable of this file holds: in the first file
    that has one, this one before the others."""
    for tree in (trees[path], *(tree for other, tree in trees.items() if other != path)):
        for node in ast.walk(tree):
            if found := _values(name, node):
                return found
    return []


def _values(name: str, node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.FunctionDef) and node.name == name:
        returns = (inner for inner in ast.walk(node) if isinstance(inner, ast.Return))
        return [inner.value for inner in returns if inner.value]
    if isinstance(node, (ast.Assign, ast.NamedExpr)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if getattr(target, "id", None) == name and node.value is not None:
            return [node.value]
    return []


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value or "")
    assert isinstance(node, ast.JoinedStr)
    return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
