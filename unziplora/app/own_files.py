"""Which files below a folder are the folder's own: regular ones that no link leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def is_own_file(folder: Path, path: Path) -> bool:
    """Whether `path` is a regular file below `folder` (which may be reached by links itself) on a
    way without links. Opens nothing, so that no device or FIFO can hold it up."""
    return _is_own(folder, path) and stat.S_ISREG(_mode(path))


def is_own_folder(folder: Path, path: Path) -> bool:
    """The same of a folder below `folder`."""
    return _is_own(folder, path) and stat.S_ISDIR(_mode(path))


def _is_own(folder: Path, path: Path) -> bool:
    try:
        expected = folder.resolve() / path.relative_to(folder)
        return ".." not in path.parts and path.resolve() == expected
    except (OSError, ValueError, RuntimeError):  # a name that no file can have; a circle of links
        return False


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0
