"""What a process opens and connects to, while somebody listens: Python's own audit events."""

from __future__ import annotations

import contextlib
import os
import re
import site
import sys
import sysconfig
import threading
import zoneinfo
from collections.abc import Iterator, Sequence
from pathlib import Path

_OPENING = {"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.symlink", "os.link",
            "shutil.copyfile", "shutil.move", "shutil.rmtree"}  # fmt: skip
_CONNECTING = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
               "os.exec", "os.posix_spawn", "os.system", "urllib.Request"}  # fmt: skip
# looking for a module on sys.path, or for a package's version
_IMPORTING = re.compile(r"^<frozen importlib|[/\\]importlib[/\\]metadata[/\\]")
_listening: list[list[tuple[str, str]]] = []
_lock = threading.Lock()
_hooked = False


@contextlib.contextmanager
def audited() -> Iterator[list[tuple[str, str]]]:
    """A list that grows by (event, what) while the block runs, in whichever thread."""
    global _hooked
    with _lock:
        if not _hooked:  # an audit hook stays for good
            sys.addaudithook(_hear)
            _hooked = True
    heard: list[tuple[str, str]] = []
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)


def opened_outside(heard: Sequence[tuple[str, str]], allowed: Sequence[Path]) -> list[str]:
    """What was opened, listed or changed below none of these folders, links resolved."""
    roots = [Path(os.path.realpath(path)) for path in allowed]
    found = set()
    for event, what in heard:
        if event in _OPENING:
            path = Path(os.path.realpath(what))
            if not any(path == root or root in path.parents for root in roots):
                found.add(f"{event} {path}")
    return sorted(found)


def pythons_own() -> list[Path]:
    """What Python imports, and what the system says of itself."""
    python = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *site.getsitepackages()}
    python.update(zoneinfo.TZPATH)  # which dates with a time zone read
    if "matplotlib" in sys.modules:  # which gradio imports at its first call
        python.add(sys.modules["matplotlib"].get_cachedir())
    system = ["/etc/mime.types", "/etc/httpd", "/etc/apache", "/usr/local/etc", "/dev/null",
              "/proc/meminfo", "/proc/self/statm", "/dev/urandom"]  # fmt: skip
    return [*map(Path, python), *map(Path, system)]


def connected(heard: Sequence[tuple[str, str]]) -> list[str]:
    """Every connection, name look-up and program that was begun."""
    return sorted({f"{event} {what}" for event, what in heard if event in _CONNECTING})


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _listening or (event not in _OPENING and event not in _CONNECTING):
        return
    if _IMPORTING.search(sys._getframe(1).f_code.co_filename):
        return  # by whoever is the first to need it
    what = arguments[1] if event == "socket.connect" else arguments[0]
    if event in _OPENING and not isinstance(what, (str, bytes, os.PathLike)):
        return  # a file that is open already
    text = os.fsdecode(what) if isinstance(what, (bytes, os.PathLike)) else str(what)
    for heard in list(_listening):
        heard.append((event, text))
