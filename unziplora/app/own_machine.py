"""Showing a folder in the desktop's file manager, for visitors who sit at this computer."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import which
from typing import Any

from unziplora.errors import InvalidInput

_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip")


def is_here(request: Any) -> bool:
    """Whether a request comes from this computer, and not through a proxy. request: gradio's or
    Starlette's, or None."""
    host = getattr(getattr(request, "client", None), "host", None)
    headers = getattr(request, "headers", None) or {}
    try:
        return ipaddress.ip_address(str(host)).is_loopback and not any(
            name in headers for name in _FORWARDED
        )
    except ValueError:
        return False


def can_open(system: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this computer has a desktop that shows folders."""
    if system.startswith(("win", "darwin")):
        return True
    has_screen = "DISPLAY" in environment or "WAYLAND_DISPLAY" in environment
    return has_screen and which("xdg-open") is not None


def open_folder(folder: Path, run: Callable[[list[str]], Any] | None = None) -> None:
    """run: starts a program. Raises InvalidInput where the folder is gone or nothing shows it."""
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}. Refresh the list.")
    program = {"win32": "explorer", "darwin": "open"}.get(sys.platform, "xdg-open")
    try:
        (run or subprocess.Popen)([program, str(folder)])
    except OSError as error:
        raise InvalidInput(
            f"The folder could not be shown ({error.strerror}). Open it yourself: {folder}."
        ) from error
