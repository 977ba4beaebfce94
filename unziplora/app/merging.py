"""A ZipLoRA merge in a thread of its own, which page and API look at and stop.

As a run it is held by the program and not by the page, which may be closed meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Host
from unziplora.ziplora.learn import DrawnForMerge, MergeEvent, MergeMessage, MergeStep
from unziplora.ziplora.merging import ZipMerge

MergeState = Literal["running", "completed", "stopped", "failed"]


class Merging:
    """name: of the file, without its ending. step of steps are done; drawing: what is drawn
    before the first one, as "2 of 4". path: of the file, once it is written. failure: what it
    ended with, where it failed."""

    def __init__(self, merge: ZipMerge) -> None:
        self.name = merge.path.stem
        self.state: MergeState = "running"
        self.step, self.steps = 0, merge.settings.steps
        self.drawing = ""
        self.time_left: float | None = None
        self.messages: list[str] = []
        self.path: Path | None = None
        self.failure: UnZipLoRAError | None = None
        self._merge = merge
        self._ended = threading.Event()

    def stop(self) -> None:
        """After its step; what was learned by then is written."""
        self._merge.send("stop")

    def wait(self, seconds: float | None = None) -> bool:
        """Until it has ended; False where time was over before."""
        return self._ended.wait(seconds)

    def drive(
        self,
        open_host: Callable[[], Host],
        reserved: AbstractContextManager[None],
        heard: Callable[[MergeEvent], None],
        saved: Callable[[Path], None],
    ) -> None:
        """From begin to end. reserved: keeps the model from runs. heard: hears every event. saved:
        called with the file."""
        state: MergeState = "failed"
        try:
            with reserved, contextlib.closing(self._merge.on(open_host())) as events:
                for event in events:
                    self._note(event)
                    heard(event)
            if self._merge.saved is not None:
                self.path = self._merge.saved.path
                saved(self.path)
            state = "stopped" if self._merge.stopped else "completed"
        except UnZipLoRAError as error:
            self.failure = error
        except Exception as error:  # a border: the page and the API answer in words
            traceback.print_exc()
            self.failure = UnZipLoRAError(
                f"The merge ended unexpectedly ({type(error).__name__}: {error}). Try again; the "
                "program's window or log has the details."
            )
        finally:
            self.time_left, self.state = None, state
            self._ended.set()

    def result(self) -> Path:
        """The file, once it has ended. Raises what it ended with, and InvalidInput where it was
        stopped before it had learned anything."""
        self.wait()
        if self.failure is not None:
            raise self.failure
        if self.path is None:
            raise InvalidInput(
                f"The merge {self.name} was stopped before its first step. Start it again."
            )
        return self.path

    def _note(self, event: MergeEvent) -> None:
        match event:
            case DrawnForMerge():
                self.drawing = f"{event.number} of {event.count}"
            case MergeStep():
                self.drawing = ""
                self.step, self.time_left = event.step, event.time_left
            case MergeMessage():
                self.messages.append(event.text)

    def as_json(self) -> dict[str, Any]:
        """For the API; of the path, its base name only."""
        shown = ("name", "state", "step", "steps", "drawing", "time_left", "messages")
        return {
            **{key: getattr(self, key) for key in shown},
            "file": self.path.name if self.path else None,
            "error": str(self.failure) if self.failure else None,
        }


class Merges:
    """One at a time, because there is one model. `current` is the last one, also when it has
    ended."""

    def __init__(
        self,
        open_host: Callable[[], Host],
        reserve_model: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._open_host, self._reserve_model = open_host, reserve_model
        self._lock = threading.Lock()
        self.current: Merging | None = None
        # hears every event, in the merge's thread
        self.on_event: Callable[[MergeEvent], None] = lambda event: None

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.state == "running"

    def start(self, merge: ZipMerge, saved: Callable[[Path], None]) -> Merging:
        """Begins it in a thread. saved: called with the file. Raises InvalidInput while another
        one runs."""
        with self._lock:
            if self.running and self.current is not None:
                raise InvalidInput(
                    f"{self.current.name} is being merged already. Wait for it, or stop it."
                )
            merging = self.current = Merging(merge)

        def work() -> None:
            merging.drive(self._open_host, self._reserve_model(), self.on_event, saved)

        threading.Thread(target=work, name="unziplora-merge", daemon=True).start()
        return merging

    def send(self, command: str) -> None:
        """To the one that runs, if any. Raises InvalidInput for anything but "stop"."""
        if command != "stop":
            raise InvalidInput(
                f"A merge has no command {command[:50]!r}. Send stop, which writes what it learned."
            )
        self.stop()

    def stop(self) -> None:
        """The one that runs, if any."""
        if self.current is not None:
            self.current.stop()

    def close(self, seconds: float) -> None:
        """When the program ends: what was learned so far is written."""
        self.stop()
        if self.current is not None:
            self.current.wait(seconds)
