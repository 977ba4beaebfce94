"""The folder that the app's page uploads to: this process's own, and gone when it ends.

gradio keeps uploads in a folder that all programs of a machine share, and leaves them there. Here
each process has one, which no other user can read; a file is removed when it was used, or an hour
after anybody last asked for it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from unziplora.app.own_files import is_own_file

KEPT_SECONDS = 3600.0  # after its last use: a page may train on its image again
MOST_BYTES = 8_000_000_000  # of all uploads together: two of the largest LoRAs
_PREFIX = "unziplora-uploads-"
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)-\w+")


_VARIABLE = "GRADIO_TEMP_DIR"
_created: list[tuple[Path, str | None]] = []  # the folder, and what the variable was before


def upload_folder() -> Path:
    """Made at the first call, which also removes those of processes that were killed. gradio reads
    where it is from GRADIO_TEMP_DIR, both when a page is built and at each request."""
    if not _created:
        earlier = os.environ.get(_VARIABLE)
        chosen = Path(earlier or tempfile.gettempdir())
        chosen.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(chosen)
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=chosen)).resolve()
        os.environ[_VARIABLE] = str(path)
        _created.append((path, earlier))
        atexit.register(remove_all)
    return _created[0][0]


def is_upload(path: str) -> bool:
    """Whether a path from a page is a file that was uploaded to this process, or made by it for its
    page; counts as a use of the file."""
    found = Path(path)
    if not found.is_absolute() or not is_own_file(upload_folder(), found):
        return False
    with contextlib.suppress(OSError):
        os.utime(found)
    return True


def discard(path: str | Path) -> None:
    """Removes an upload that was used; files of others stay."""
    found = Path(path)
    if is_own_file(upload_folder(), found):
        with contextlib.suppress(OSError):
            found.unlink()


def make_room(now: float | None = None) -> None:
    """Removes what was not used for an hour, and of the rest the oldest above MOST_BYTES.
    now: seconds since 1970."""
    now = time.time() if now is None else now
    files = sorted(_files(upload_folder()), reverse=True)  # the newest first
    kept = 0
    for used, size, path in files:
        kept += size
        if now - used > KEPT_SECONDS or kept > MOST_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()


def remove_all() -> None:
    """When the program ends; a page that is built afterwards has another folder."""
    while _created:
        path, earlier = _created.pop()
        shutil.rmtree(path, ignore_errors=True)
        if earlier is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = earlier


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was last used, and its size in bytes."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state = path.lstat()
            if is_own_file(folder, path):
                found.append((state.st_mtime, state.st_size, path))
    return found


def _remove_abandoned(folder: Path) -> None:
    """Of processes of this user that no longer are."""
    for path in folder.glob(f"{_PREFIX}*"):
        match = _NAME.fullmatch(path.name)
        if match is None or path.is_symlink() or _is_alive(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            if not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Where that cannot be known, yes."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
