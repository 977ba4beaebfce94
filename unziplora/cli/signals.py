"""What ends a command: Ctrl-C, SIGTERM (docker, systemd) and SIGHUP (a terminal that is closed).

The exit code is 128 and the signal's number: 130, 143, 129. A run saves its state first.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

_NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")  # beside SIGINT; of those that the system has
_STOPPING = b"\nStopping after this step (Ctrl-C again: at once).\n"


class Ended(BaseException):
    """Raised by a signal; like KeyboardInterrupt, nothing but the command line catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


class Stoppable(Protocol):
    """A run, or something else that takes minutes and can be stopped after a step. training: its
    steps have begun. interruptible: an exception raised now loses nothing."""

    @property
    def training(self) -> bool: ...

    @property
    def interruptible(self) -> bool: ...

    def send(self, command: Literal["stop"]) -> None: ...


class RunSignals:
    """The handler while a run is driven in this thread. number: of the first signal, or None.

    The first Ctrl-C ends the run after its step. A second signal, and the others, end it at once,
    because a system that sends them soon kills. After that one changes nothing, because the state
    is under way to the disk.
    """

    def __init__(self, run: Stoppable) -> None:
        self._run = run
        self._hurried = False
        self.number: int | None = None

    def __call__(self, number: int, frame: Any) -> None:
        first = self.number is None
        if first:
            self.number = number
            self._run.send("stop")
        if first and number == signal.SIGINT and self._run.training:
            with contextlib.suppress(OSError):
                os.write(2, _STOPPING)  # this may have interrupted a print
        elif not self._hurried and self._run.interruptible:
            self._hurried = True
            raise Ended(number)


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], None], *, interrupts: bool) -> Iterator[None]:
    """Calls `handler` for the signals that end a process, with `interrupts` also for Ctrl-C."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if interrupts:
        numbers.append(signal.SIGINT)
    with contextlib.ExitStack() as restored:
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_IGN:  # nohup
                continue
            try:
                earlier = signal.signal(number, handler)
            except ValueError:  # not in the main thread
                break
            restored.callback(signal.signal, number, earlier)
        yield


def end(number: int, frame: Any) -> None:
    """The handler while there is nothing to save."""
    raise Ended(number)
