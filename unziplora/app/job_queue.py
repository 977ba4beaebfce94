"""Runs that wait their turn, one after the other, in a thread of their own.

A page or an API reads a job's events by number and sends it commands; it may be closed, reloaded or
opened twice, and the run continues. Nothing here knows a host or a page.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from unziplora.app.job import ENDED, Begin, Job, State
from unziplora.app.saved_state import what_is_saved
from unziplora.errors import InvalidInput, NotFound, UnZipLoRAError
from unziplora.training.events import (
    Command,
    Event,
    Finished,
    Message,
)
from unziplora.training.run import Run
from unziplora.training.settings import Settings

_HANDOVER_SECONDS = 2.0
RESUMABLE: frozenset[State] = frozenset({"paused", "stopped", "failed"})
MOST_WAITING = 100
MOST_WAITING_BYTES = 1_000_000_000  # of their images together, as they were uploaded
COMMANDS: tuple[str, ...] = (
    "stop", "stop and save", "save now", "preview now", "pause", "resume", "cancel", "run next",
)  # fmt: skip


class Jobs:
    """The queue. One worker thread drives one run at a time; it starts with the first job."""

    def __init__(self) -> None:
        self._known: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._model = threading.Lock()  # held by whoever uses it: a run, or a sheet
        # hears every event, in the worker's thread; what it raises ends up in the run's messages
        self.on_event: Callable[[Event], None] = lambda event: None

    def submit(
        self,
        name: str,
        begin: Begin,
        again: Begin,
        image: bytes | None = None,
        settings: Settings | None = None,
    ) -> Job:
        """Puts a run at the end of the queue. Raises InvalidInput where one of this name waits or
        runs already: two runs cannot share a folder; and where very many wait."""
        size = len(image or b"")
        with self._changed:
            self._check_alone(name)
            held = size + sum(job.size for job in self._waiting)
            if len(self._waiting) >= MOST_WAITING or held > MOST_WAITING_BYTES:
                raise InvalidInput(
                    f"{len(self._waiting)} runs are waiting already, as many as the queue takes. "
                    "Cancel some, or wait for them."
                )
            job = Job(name, begin, again, size, settings, image)
            self._known[job.id] = job
            self._waiting.append(job)
            self._wake()
        return job

    def _check_alone(self, name: str, itself: Job | None = None) -> None:
        others = (job for job in self._known.values() if job is not itself)
        if any(job.name == name and job.state not in ENDED for job in others):
            raise InvalidInput(
                f"A run named {name} is waiting or running already. "
                "Wait for it, cancel it, or choose another name."
            )

    def all(self) -> list[Job]:
        """In the order in which they were submitted."""
        return list(self._known.values())

    def get(self, job_id: str) -> Job:
        """Raises NotFound for an id that is not known."""
        job = self._known.get(job_id)
        if job is None:
            raise NotFound("There is no run with this id. It may be from before a restart.")
        return job

    def busy_names(self) -> set[str]:
        """Of the runs that have not ended."""
        return {job.name for job in self.all() if job.state not in ENDED}

    @property
    def current(self) -> Job | None:
        """The one that is running."""
        return next((job for job in self.all() if job.state == "running"), None)

    def shown(self) -> Job | None:
        """What a page shows: the run that is running, else the next one, else the one that had the
        model last, whether it has ended or is paused."""
        if (job := self.current or next(iter(self.waiting()), None)) is not None:
            return job
        # not by their order: one that was resumed ends after others, one that was cancelled had no
        # turn
        return max(self.all(), key=lambda job: job.ended, default=None)

    def send(self, job_id: str, command: str) -> None:
        """Obeys a command now, or the run does after its step. A command that comes twice, or too
        late, does nothing. Raises InvalidInput for an unknown command or id."""
        if command not in COMMANDS:
            raise InvalidInput(
                f"There is no command {command[:50]!r}. Choose one of {', '.join(COMMANDS)}."
            )
        job = self.get(job_id)
        with self._changed:
            if command == "resume":
                self._resume(job)
            elif job.state == "waiting" and command == "run next":
                self._place(job, 0)
            elif job.state == "waiting" and command in ("cancel", "stop", "stop and save"):
                self._cancel(job)
            elif job.state == "paused" and command in ("cancel", "stop"):
                job.state = "stopped"
            elif job.state == "running":
                self._pass_on(job, command)
            self._changed.notify_all()

    def interrupt(self, job_id: str) -> None:
        """By the program's own Interrupt, which knows nothing of runs: the one that runs stops and
        saves. Raises NotFound."""
        job = self.get(job_id)
        with self._changed:
            if job.state == "running":
                job.interrupted = True
                self._pass_on(job, "stop and save")
            self._changed.notify_all()

    def take_back(self, job_id: str) -> tuple[bytes, Settings]:
        """Takes a run that waits for its first turn out of the queue: its image and settings, to be
        changed and submitted again. Raises NotFound, and InvalidInput for a run that does not."""
        with self._changed:
            job = self.get(job_id)
            image, settings = job.image, job.settings
            if not job.editable or image is None or settings is None:
                raise InvalidInput(
                    f"The run {job.name} has begun, so it cannot be edited. Stop it, and start "
                    "another."
                )
            self._cancel(job)
            self._changed.notify_all()
        return image, settings

    def move(self, job_id: str, place: int) -> None:
        """Puts a run that waits at a place in the queue, from 0, or at its end. Raises NotFound,
        and InvalidInput for a run that does not wait."""
        with self._changed:
            job = self.get(job_id)
            if job not in self._waiting:
                raise InvalidInput(
                    f"The run {job.name} is not waiting. Only runs that wait have a place."
                )
            self._place(job, max(0, place))
            self._changed.notify_all()

    def _place(self, job: Job, place: int) -> None:
        self._waiting.remove(job)
        self._waiting.insert(place, job)

    def waiting(self) -> list[Job]:
        """In the order of their turns."""
        return list(self._waiting)

    def renamed(self, name: str, new: str, files: Mapping[str, Path]) -> None:
        """A pair has another name now: so have the runs that wrote it."""
        with self._changed:
            for job in self._known.values():
                if job.name == name and job.state in ENDED:
                    job.name = new
                    job.files = dict(files) if job.files else {}
            self._changed.notify_all()

    def close(self, seconds: float = 60.0) -> None:
        """When the program ends: what runs stops and saves its state, what waits never begins.
        Comes back when the run has ended, or has not learned anything yet, or time is over."""
        with self._changed:
            self._closed = True
            for job in list(self._waiting):
                self._cancel(job)
            current = self.current
            if current is not None:
                self._pass_on(current, "stop")
                self._changed.wait_for(
                    lambda: current.state != "running" or not current.step, timeout=seconds
                )
            self._changed.notify_all()

    def _resume(self, job: Job) -> None:
        if job.state in RESUMABLE and not self._closed:
            self._check_alone(job.name, job)
            job.forget_image()
            job.state = "waiting"
            self._waiting.append(job)
            self._wake()

    def _cancel(self, job: Job) -> None:
        self._waiting.remove(job)
        job.state = "cancelled" if not job.step else "stopped"
        job.forget_image()

    @contextlib.contextmanager
    def reserve_model(self) -> Iterator[None]:
        """Keeps the model from the runs that wait, for something else than a run. Raises
        InvalidInput while it is in use."""
        # a run that has just ended gives the model back a moment after it says so
        if not self._model.acquire(timeout=_HANDOVER_SECONDS):
            raise InvalidInput(
                "The model is in use by a run or a sheet. Wait for it, or pause the run, and try "
                "again."
            )
        try:
            yield
        finally:
            self._model.release()

    def wait(self, job: Job, since: int, seconds: float) -> None:
        """Until the job has an event of number `since`, or its state changes, or time is over."""
        state = job.state
        with self._changed:
            self._changed.wait_for(
                lambda: job.event_count > since or job.state != state, timeout=seconds
            )

    def _pass_on(self, job: Job, command: str) -> None:
        if command in ("pause", "stop", "stop and save", "cancel"):
            job.pausing = command == "pause"
        words: dict[str, Command] = {"pause": "stop", "cancel": "stop"}
        if job.run is not None:
            job.run.send(words.get(command, command))  # type: ignore[arg-type]
        else:
            job.early.append(words.get(command, command))  # type: ignore[arg-type]

    def _wake(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="unziplora", daemon=True)
            self._worker.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            with self._model:
                job = self._next()
                if job is not None:
                    self._drive(job)

    def _next(self) -> Job | None:
        """The first of the queue, its turn begun; None where it was cancelled meanwhile."""
        with self._changed:
            if not self._waiting or self._closed:
                return None
            job = self._waiting.popleft()
            job.state, job.pausing, job.interrupted, job.error = "running", False, False, None
            self._changed.notify_all()
            return job

    def _drive(self, job: Job) -> None:
        """One run from begin to end; whatever happens, the next one's turn comes."""
        state: State = "failed"
        run: Run | None = None
        try:
            run = job.begin()
            with self._changed:
                job.run = run
                for command in job.early:
                    run.send(command)
                job.early.clear()
            # closed whatever happens, so that the model is restored before the next one's turn
            with contextlib.closing(iter(run)) as events:
                for event in events:
                    with self._changed:
                        job.note(event)
                        if isinstance(event, Finished):
                            state = _state_after(event, job.pausing)
                        self._changed.notify_all()
                    self._hear(job, event)
        except UnZipLoRAError as error:
            job.error = str(error)
        except BaseException as error:
            job.trace = traceback.format_exc()
            job.error = (
                f"The run ended unexpectedly ({type(error).__name__}: {error}). "
                f"{what_is_saved(run)} Its log.txt says more."
            )
        finally:
            if job.error and run is not None and run.kept_in != run.folder.path:
                job.error += f" Its own folder refused the state, which is in {run.kept_in}."
            with self._changed:
                job.run, job.time_left = None, None
                job.forget_image()
                job.state, job.ended = state, time.time()
                self._changed.notify_all()

    def _hear(self, job: Job, event: Event) -> None:
        """A listener that fails never ends a run."""
        try:
            self.on_event(event)
        except Exception as error:
            with self._changed:
                job.note(Message(f"After {type(event).__name__}: {error}"))
                self._changed.notify_all()


def _state_after(event: Finished, pausing: bool) -> State:
    if event.outcome == "completed":
        return "completed"
    return "paused" if pausing and event.outcome == "stopped" else "stopped"
