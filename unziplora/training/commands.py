"""What a run is asked to do while it trains."""

from __future__ import annotations

import threading

from unziplora.training.events import Command

STOPS: frozenset[Command] = frozenset({"stop", "stop and save"})


class Commands:
    """Those that wait until the run obeys them, between two steps; for any thread."""

    def __init__(self) -> None:
        # A signal's handler sends too, and may come while its own thread holds the lock.
        self._lock = threading.RLock()
        self._waiting: set[Command] = set()

    def send(self, command: Command) -> None:
        with self._lock:
            self._waiting.add(command)

    def take(self) -> set[Command]:
        """All that wait; they wait no longer."""
        with self._lock:
            taken, self._waiting = self._waiting, set()
        return taken

    @property
    def stopping(self) -> bool:
        """Whether one of them ends the run."""
        return bool(STOPS & self._waiting)
