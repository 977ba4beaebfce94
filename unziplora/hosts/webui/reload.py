"""Reload UI: the WebUI builds its page and its scripts again, and a run waits meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from unziplora.hosts.webui.txt2img import webui


class ReloadGate:
    """Holds a run still between two steps while the WebUI reloads its page: meanwhile its Lora
    extension takes its patches of Linear.forward off and puts them on again, and a step would
    call what is not there (extensions-builtin/Lora/scripts/lora_script.py:15)."""

    def __init__(self) -> None:
        self._over, self._still = threading.Event(), threading.Event()
        self._over.set()

    def begin(self, running: Callable[[], bool]) -> None:
        """Returns when no step is under way."""
        self._over.clear()
        while running() and not self._still.wait(0.1):
            pass

    def end(self) -> None:
        self._over.set()

    def pass_through(self) -> None:
        """Called by the run after every step."""
        if not self._over.is_set():
            self._still.set()
            self._over.wait()
            self._still.clear()
            webui("shared").state.interrupted = False


def reloading() -> bool:
    """Whether an interrupt is one of "Reload UI", which sets the same flag
    (modules/shared_state.py:90) and then tells the page's server to exit."""
    for _ in range(10):
        server = getattr(getattr(webui("shared"), "demo", None), "server", None)
        if getattr(server, "should_exit", False):
            return True
        time.sleep(0.1)
    return False
