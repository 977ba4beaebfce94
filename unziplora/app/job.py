"""One run in the queue, as a page and an API see it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unziplora.training.events import Command, Event, LorasSaved, Started, StepDone
from unziplora.training.run import Run
from unziplora.training.settings import Settings

State = Literal["waiting", "running", "paused", "completed", "stopped", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"completed", "stopped", "failed", "cancelled"})

Begin = Callable[[], Run]


@dataclass
class Job:
    """One run in the queue. begin: makes the run when its turn comes; again: makes the rest of it
    after a pause, or after a stop. size: bytes that `begin` holds until then. settings, image: as
    they were chosen; the image until it begins. error: two sentences, where it
    failed; trace: for the log only. interrupted: the program's own Interrupt stopped it, not a
    command to this run."""

    name: str
    begin: Begin
    again: Begin
    size: int = 0
    settings: Settings | None = None
    image: bytes | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    state: State = "waiting"
    submitted: float = field(default_factory=time.time)
    ended: float = 0.0  # when it last had the model; seconds since 1970, or 0
    step: int = 0
    steps: int | None = None
    time_left: float | None = None
    files: dict[str, Path] = field(default_factory=dict)
    error: str | None = None
    trace: str | None = None
    run: Run | None = None
    pausing: bool = False
    interrupted: bool = False
    # commands that came before there was a run to obey them
    early: list[Command] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)

    def events(self, since: int = 0) -> list[tuple[int, Event]]:
        """Those with numbers from `since` on; numbers count from 0 and never change."""
        since = max(0, since)
        return list(enumerate(self._events[since:], since))

    @property
    def event_count(self) -> int:
        return len(self._events)

    @property
    def editable(self) -> bool:
        """Whether it waits for its first turn, so that it may still be another run."""
        return self.state == "waiting" and self.image is not None and self.settings is not None

    def forget_image(self) -> None:
        """What is left to do is on the disk."""
        self.begin, self.size, self.image = self.again, 0, None

    def note(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Started):
            self.step, self.steps = event.step, event.steps
        elif isinstance(event, StepDone):
            self.step, self.steps, self.time_left = event.step, event.steps, event.time_left
        elif isinstance(event, LorasSaved) and not event.snapshot:
            self.files = {str(role): path for role, path in event.files.items()}

    def as_json(self, since: int | None = None) -> dict[str, Any]:
        """What the page and the API show; with `since`, also the events from that number on."""
        shown: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "submitted": self.submitted,
            "step": self.step,
            "steps": self.steps,
            "time_left": self.time_left,
            "files": {role: path.name for role, path in self.files.items()},
            "error": self.error,
        }
        if since is not None:
            shown["events"] = [event_json(n, event) for n, event in self.events(since)]
        return shown


def event_json(number: int, event: Event) -> dict[str, Any]:
    """An event as data: its number, its type and its fields; of paths, base names only."""
    fields = {name: _plain(value) for name, value in asdict(event).items()}
    return {"number": number, "type": type(event).__name__, **fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
