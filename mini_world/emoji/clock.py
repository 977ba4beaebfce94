"""How long a training stretch lasts, and when something is due in it."""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path
from types import FrameType


class Clock:
    """Runs for some minutes, or until SIGTERM or ctrl-C; then `running` is False."""

    def __init__(self, minutes: float) -> None:
        self._end, self._start = minutes, time.monotonic()
        self._last: dict[str, float] = {}
        self.stopped = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._start) / 60

    @property
    def share(self) -> float:
        """Of the stretch that is over, 0..1."""
        return min(1.0, self.minutes / self._end) if self._end > 0 else 1.0

    @property
    def running(self) -> bool:
        return not self.stopped and self.share < 1

    @property
    def falling(self) -> float:
        """A cosine from 1 at the stretch's start to 0 at its end."""
        return 0.5 * (1 + math.cos(math.pi * self.share))

    def due(self, what: str, every: float) -> bool:
        """True once in each `every` minutes."""
        now = self.minutes
        if now - self._last.setdefault(what, 0.0) < every:
            return False
        self._last[what] = now
        return True


def stretch_parser(doc: str, rate: float, batch: int) -> argparse.ArgumentParser:
    """What every training stretch can be told."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--cool", action="store_true", help="let the rate fall to 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=batch)
    return parser
