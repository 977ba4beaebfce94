"""A WebUI that ends saves the state of a run first.

On Ctrl-C it exits at once, without clean-up (modules/initialize_util.py:163), and its buttons that
stop or restart it do too (modules/restart.py).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from unziplora.hosts.webui.txt2img import webui

if TYPE_CHECKING:
    from unziplora.hosts.webui.progress import RunQueue

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Windows' Ctrl-Break
_EXITS = ("stop_program", "restart_program")
_SECONDS = 30  # for a step and the state of a full-size run


class SaveAtExit:
    """jobs: the queue, or None where nothing was trained yet. A second signal ends at once."""

    def __init__(self, jobs: Callable[[], RunQueue | None], seconds: float = _SECONDS) -> None:
        self._jobs, self._seconds = jobs, seconds
        self._installed = self._saving = False

    def install(self) -> None:
        """Once; in the main thread, which alone may handle signals. What handled a signal before
        does so afterwards."""
        if self._installed or threading.current_thread() is not threading.main_thread():
            return
        self._installed = True
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            before = None if number is None else signal.getsignal(number)
            if before is not None and before is not signal.SIG_IGN:
                signal.signal(number, partial(self._handle, before))
        restart: Any = webui("restart")
        for name in _EXITS:
            if hasattr(restart, name):
                setattr(restart, name, self._saved_first(getattr(restart, name)))
        atexit.register(self.save)

    def save(self) -> None:
        """Pauses the run, which saves its state, and waits for that; runs that wait are left."""
        jobs = self._jobs()
        job = jobs.current if jobs is not None else None
        if jobs is None or job is None or self._saving:
            return
        self._saving = True
        print(f"UnZipLoRA: saving the run {job.name}. Press Ctrl-C again to end without that.")
        for other in jobs.all():
            if other.state == "waiting":
                jobs.send(other.id, "cancel")
        jobs.send(job.id, "pause")
        end = time.monotonic() + self._seconds
        while job.state == "running" and time.monotonic() < end:
            time.sleep(0.05)
        saved = job.state == "paused"
        print(
            f"UnZipLoRA: {'saved at step' if saved else 'not saved in time, at step'} {job.step}."
        )

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
