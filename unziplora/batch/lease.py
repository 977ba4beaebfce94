"""A lease on a run's folder, so that two drivers never share a run, on any shared disk.

A run's own lock (flock) is not honoured by every network disk, and says nothing of a worker that
has died on another machine. A lease is a file with its owner's name, renewed while the owner works;
one that was not renewed for LEASE_SECONDS may be taken over, and its first owner then stops without
writing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from unziplora.errors import TrainingFailed, WriteError

LEASE_SECONDS = 180.0
RENEW_SECONDS = 20.0


class LeaseTakenError(Exception):
    """Another worker has the run; owner: where."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"Another driver has this run ({owner}).")


class LeaseLostError(TrainingFailed):
    """Another worker has taken over the run: nothing of it may be written here any more."""

    def __init__(self) -> None:
        super().__init__(
            "Another worker has taken this run over, because this one or its disk did not answer "
            "for three minutes. The other continues it."
        )


class Lease:
    """One that is held."""

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token = path, token
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether another has taken the run over, as of the last renewal."""
        return self._lost.is_set()

    def renew(self) -> None:
        """Raises nothing: a disk may be away for a moment."""
        try:
            text = self._path.read_text("utf-8", "replace")
            if self._token in text:
                os.utime(self._path)  # by the disk's clock, not this machine's
            else:
                self._lost.set()
        except FileNotFoundError:
            if self._path.parent.is_dir():  # not a disk that is away
                self._lost.set()
        except OSError:
            pass


@contextlib.contextmanager
def leased(folder: Path) -> Iterator[Lease]:
    """Holds the lease of a run's folder, which must exist. Raises LeaseTakenError, and WriteError
    where the disk is full or refuses."""
    path = folder / "lease.json"
    token = uuid.uuid4().hex
    _take(path, token)
    lease = Lease(path, token)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, ended), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(OSError):
            if _read(path).get("token") == token:
                path.unlink()


def _renew(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        lease.renew()


def _take(path: Path, token: str) -> None:
    try:
        if not _create(path, token):
            _remove_stale(path)
            if not _create(path, token):
                raise LeaseTakenError("another worker that began in the same second")
    except OSError as error:
        raise WriteError(
            f"Nothing can be written to the run's folder {path.parent.name} ({error.strerror}). "
            "Allow writing there, or make room on its disk."
        ) from error


def _create(path: Path, token: str) -> bool:
    """Whether the lease is ours now; False where there is one."""
    owner = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), **_place()}
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        # a network disk may have done it and lost its answer, so that it was sent again
        return _read(path).get("token") == token
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(owner, file)
    except OSError:  # a full disk: no lease without an owner may stay
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True


def _remove_stale(path: Path) -> None:
    """Removes a dead owner's lease. Raises LeaseTakenError where its owner is alive."""
    owner = _read(path)
    if not _is_stale(path, owner):
        place = f"{owner.get('host', 'an unknown machine')}, process {owner.get('pid', '?')}"
        raise LeaseTakenError(place)
    # Several may find the same one. A rename succeeds for one of them alone; a slow one may move a
    # new lease, which it sees by the token, and puts back.
    aside = _temporary(path)
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _read(aside).get("token") != owner.get("token"):
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _is_stale(path: Path, owner: dict[str, object]) -> bool:
    """Whether its owner has died: known at once for a process of this machine, else by its age."""
    pid, place = owner.get("pid"), _place()
    if place and place.items() <= owner.items() and isinstance(pid, int) and not _alive(pid):
        return True
    try:
        renewed = path.stat().st_mtime
    except FileNotFoundError:
        return True
    return _disk_time(path.parent) - renewed > LEASE_SECONDS


def _place() -> dict[str, str]:
    """What a process's number belongs to: this start of this machine, and its container, which may
    have its machine's name and numbers of its own. Empty on Windows, where age alone decides."""
    if os.name == "nt":  # its os.kill would end the process
        return {}
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return {"boot": boot, "processes": os.readlink("/proc/self/ns/pid")}
    except (OSError, ValueError):  # not Linux
        return {"host": socket.gethostname()}


def _disk_time(folder: Path) -> float:
    """Now by the disk's own clock, which another machine's may differ from."""
    probe = _temporary(folder / "clock")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name beside it, of the kind that files.clear_leftovers removes."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
