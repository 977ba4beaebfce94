"""When something is due that comes every so many steps or minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

FIRST_SHARE = 20  # the first state is saved after a twentieth of the run,
FIRST_SECONDS = 60.0  # or after a minute, whichever comes first


@dataclass(frozen=True)
class EverySteps:
    """every: steps; 0: never. The last step is left out: what a run ends with is saved anyway."""

    every: int
    last: int

    def due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0 and step < self.last


@dataclass
class SaveClock:
    """When a state is saved: early for the first time, then by minutes.

    minutes: from one to the next. first_step: where the first one is due, or None where there is a
    state to begin with, as in a resumed run.
    """

    minutes: float
    first_step: int | None
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def of_run(cls, minutes: float, steps: int, *, resumed: bool) -> SaveClock:
        return cls(minutes, None if resumed else max(1, steps // FIRST_SHARE))

    def due(self, step: int) -> bool:
        seconds = 60 * self.minutes
        if self.first_step is not None:
            if step >= self.first_step:
                return True
            seconds = min(seconds, FIRST_SECONDS)
        return time.monotonic() - self._since > seconds

    def saved(self) -> None:
        """A state was saved, or could not be: the next is due by minutes."""
        self._since, self.first_step = time.monotonic(), None
