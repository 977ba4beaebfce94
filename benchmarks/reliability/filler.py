"""Fills a disk, or limits the size of files, from a moment on."""

from __future__ import annotations

import os
from pathlib import Path

FILLER = "filler"


def fill(folder: Path, room: int) -> None:
    """Leaves so many bytes of the disk that a folder lies on."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    with open(folder / FILLER, "wb") as file:
        if free > room:
            os.posix_fallocate(file.fileno(), 0, free - room)


def limit_files(size: int) -> None:
    """No file grows beyond so many bytes; writing more is an error."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
