"""Checks what keeps the code easy to read: lengths, complexity, and one-way imports.

    python tools/check_structure.py

A file has at most 400 lines, a function at most 60 lines and a cyclomatic complexity of 12. No
imports run in a circle, and benchmarks/ may import mini_world/, not the other way round.
What is over a limit for a reason stands in EXCEPTIONS with that reason; an exception that is no
longer needed is a fault too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE_LINES, FUNCTION_LINES, COMPLEXITY = 400, 60, 12
CODE = ("unziplora", "benchmarks", "mini_world", "tools", "tests", "scripts", "javascript",
        "comfyui")  # fmt: skip
ONE_WAY = ("benchmarks", "mini_world", "unziplora")  # each imports only those after it
EXCEPTIONS: dict[str, str] = {}  # a file, or FILE:FUNCTION, with a sentence that says why

BRANCHES = (
    ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.Lambda,
    ast.match_case,
)  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Fault:
    """where: a file, or FILE:FUNCTION, as EXCEPTIONS names it."""

    where: str
    text: str


def tracked() -> list[Path]:
    """The files of CODE that git knows or would add, relative to ROOT."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *CODE]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = sorted({Path(line) for line in listed.splitlines()})
    return [path for path in paths if path.suffix in (".py", ".js") and (ROOT / path).exists()]


def complexity(function: Function, asserts: bool = True) -> int:
    """McCabe's number as radon counts it: one more than the decisions; nested functions have
    their own. asserts: whether each counts as one. (ruff's C901 counts nested functions into the
    outer one, and no `and` and `or`.)"""
    count, nodes = 1, list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, BRANCHES) and (asserts or not isinstance(node, ast.Assert)):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function, nested ones too, with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}."
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        yield from functions(node, inner)


def too_long_or_complex(path: Path, text: str) -> Iterator[Fault]:
    lines = len(text.splitlines())
    if lines > FILE_LINES:
        yield Fault(str(path), f"{lines} lines, more than {FILE_LINES}")
    if path.suffix != ".py":
        return
    for name, function in functions(ast.parse(text)):
        first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
        lines = (function.end_lineno or first) - first + 1
        where = f"{path}:{name}"
        if lines > FUNCTION_LINES:
            yield Fault(where, f"{lines} lines, more than {FUNCTION_LINES}")
        # what a test asserts one after the other is no branch
        found = complexity(function, asserts=path.parts[0] != "tests")
        if found > COMPLEXITY:
            yield Fault(where, f"complexity {found}, more than {COMPLEXITY}")


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The modules of this repository that a file imports, wherever in it; what is only for type
    checkers left out."""
    package = path.parent.parts
    for node in without_type_checking(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            for candidate in (name, name.rpartition(".")[0]):
                if candidate in modules:
                    yield candidate
                    break


def without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from without_type_checking(node)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def wrong_imports(sources: dict[Path, str]) -> Iterator[Fault]:
    names = {module_name(path): path for path in sources if path.suffix == ".py"}
    graph = {
        name: set(imports(path, ast.parse(sources[path]), set(names)))
        for name, path in names.items()
    }
    for group in circles(graph):
        yield Fault(str(names[group[0]]), f"imports run in a circle: {', '.join(group)}")
    for name, others in graph.items():
        top = name.partition(".")[0]
        if top in ONE_WAY:
            above = (*ONE_WAY[: ONE_WAY.index(top)], "tests", "tools")
            for other in sorted(others):
                if other.partition(".")[0] in above:
                    yield Fault(str(names[name]), f"imports {other}, which lies above it")


def main() -> int:
    sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in tracked()}
    faults = [fault for path, text in sources.items() for fault in too_long_or_complex(path, text)]
    faults += wrong_imports(sources)
    for fault in faults:
        if fault.where not in EXCEPTIONS:
            print(f"{fault.where}: {fault.text}")
    needed = {fault.where for fault in faults}
    for where in EXCEPTIONS.keys() - needed:
        print(f"{where}: is within the limits now. Remove it from EXCEPTIONS.")
    return 0 if needed == EXCEPTIONS.keys() else 1


if __name__ == "__main__":
    sys.exit(main())
