"""A WebUI that ends saves the state of a run first.

On Ctrl-C it exits at once, without clean-up (modules/initialize_util.py:163), and its buttons that
stop or restart it do too (modules/restart.py).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from unziplora.hosts.webui.txt2img import webui

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Windows' Ctrl-Break
_EXITS = ("stop_program", "restart_program")


class SaveAtExit:
    """save: called once, before the WebUI ends; a second signal meanwhile ends it at once."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._installed = self._called = False

    def install(self) -> None:
        """Once; in the main thread, which alone may handle signals. What handled a signal before
        does so afterwards."""
        if self._installed or threading.current_thread() is not threading.main_thread():
            return
        self._installed = True
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is None:
                continue
            before = signal.getsignal(number)
            if before is not None and before is not signal.SIG_IGN:
                signal.signal(number, partial(self._handle, before))
        restart: Any = webui("restart")
        for name in _EXITS:
            if hasattr(restart, name):
                setattr(restart, name, self._saved_first(getattr(restart, name)))
        atexit.register(self.save)

    def save(self) -> None:
        """What it raises goes to the console: nothing may keep a WebUI from ending."""
        if self._called:
            return
        self._called = True
        try:
            self._save()
        except Exception:  # the border to the WebUI
            traceback.print_exc()

    def _handle(self, before: Any, number: int, frame: Any) -> None:
        self.save()
        if callable(before):
            before(number, frame)
        else:  # the system's own way
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _saved_first(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def save_first(*args: Any, **kwargs: Any) -> Any:
            self.save()
            return function(*args, **kwargs)

        return save_first
