"""A lease on a run's folder, so that two drivers never share a run, on any shared disk.

A run's own lock (flock) is not honoured by every network disk, and says nothing of a worker that
has died on another machine. A lease is a file with its owner's name, renewed while the owner works;
one that was not renewed for LEASE_SECONDS may be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from unziplora import files

LEASE_SECONDS = 180.0
_RENEW_SECONDS = 20.0


class LeaseTakenError(Exception):
    """Another worker has the run; `owner` says where."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextlib.contextmanager
def leased(folder: Path) -> Iterator[None]:
    """Holds the lease of a run's folder, which must exist. Raises LeaseTakenError, OSError."""
    path = folder / "lease.json"
    token = uuid.uuid4().hex
    _take(path, token)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, token, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(OSError):
            if _read(path).get("token") == token:
                path.unlink()


def _take(path: Path, token: str) -> None:
    text = json.dumps({"token": token, "host": socket.gethostname(), "pid": os.getpid()})
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        owner = _read(path)
        if not _is_stale(path, owner):
            place = f"{owner.get('host', 'an unknown machine')}, process {owner.get('pid', '?')}"
            raise LeaseTakenError(place) from None
        # Two may find the same stale lease: whoever's replacement is there last has it.
        files.write_text(path, text)
        time.sleep(1.0)
        if _read(path).get("token") != token:
            raise LeaseTakenError("another worker that began in the same second") from None
        return
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _is_stale(path: Path, owner: dict[str, object]) -> bool:
    """Whether its owner has died: known at once on this machine, by its age on another."""
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and isinstance(pid, int) and os.name != "nt":
        return not _alive(pid)  # Windows' os.kill would end it: age decides there
    try:
        renewed = path.stat().st_mtime
    except FileNotFoundError:
        return True
    return _disk_time(path.parent) - renewed > LEASE_SECONDS


def _disk_time(folder: Path) -> float:
    """Now by the disk's own clock, which another machine's may differ from."""
    probe = folder / f".clock-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _renew(path: Path, token: str, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        with contextlib.suppress(OSError):  # a disk that is away for a moment
            if _read(path).get("token") == token:
                os.utime(path)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
