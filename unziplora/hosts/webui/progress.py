"""The WebUI's own progress bar shows a run, and its Interrupt stops and saves it; while an image
waits for the run, Interrupt and Skip are about that image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from unziplora.hosts.webui import images_first
from unziplora.hosts.webui.reload import ReloadGate, reloading
from unziplora.hosts.webui.txt2img import JOB, webui
from unziplora.training.events import Event, Started, StepDone
from unziplora.ziplora.learn import MergeEvent, MergeStep


class RunningJob(Protocol):
    """A run in the queue, as far as a WebUI sees it."""

    id: str
    name: str
    step: int
    steps: int | None

    @property
    def state(self) -> str: ...


class RunQueue(Protocol):
    """The queue of runs (app/job_queue.py), which is above this package."""

    on_event: Callable[[Event], None]

    @property
    def current(self) -> RunningJob | None: ...

    def all(self) -> Sequence[RunningJob]: ...

    def interrupt(self, job_id: str) -> None: ...


def follow(jobs: RunQueue, gate: ReloadGate) -> None:
    """From now on every event of a run is passed on to the WebUI."""
    earlier = jobs.on_event

    def hear(event: Event) -> None:
        if isinstance(event, (Started, StepDone)):
            _show(event)
        if isinstance(event, StepDone):
            _obey(lambda: _stop(jobs))
        earlier(event)
        gate.pass_through()

    jobs.on_event = hear
    images_first.say_in_queue(lambda: _line(jobs))


class RunningMerges(Protocol):
    """Merges that learn (app/merging.py), which is above this package."""

    on_event: Callable[[MergeEvent], None]

    def stop(self) -> None: ...


def follow_merges(merges: RunningMerges, gate: ReloadGate) -> None:
    """The same for merges that learn on the model: Interrupt ends one with what it has learned."""

    def hear(event: MergeEvent) -> None:
        if isinstance(event, MergeStep):
            _show(event)
            _obey(merges.stop)
        gate.pass_through()

    merges.on_event = hear


def _show(event: Started | StepDone | MergeStep) -> None:
    state: Any = webui("shared").state
    state.job_count, state.job_no = 1, 0
    state.sampling_steps, state.sampling_step = event.steps, event.step
    state.textinfo = f"UnZipLoRA: step {event.step} of {event.steps}"


def _line(jobs: RunQueue) -> str | None:
    """How far the run is that has the model; None where none has it."""
    job = jobs.current
    if job is None or webui("shared").state.job != JOB:
        return None
    return f"step {job.step} of {job.steps}" if job.steps else "getting the model ready"


def _obey(stop: Callable[[], None]) -> None:
    """Interrupt and Skip, as they were pressed during the last step."""
    state: Any = webui("shared").state
    if not (state.interrupted or state.skipped) or reloading():
        return
    if not images_first.pass_on_interrupt() and state.interrupted:
        state.interrupted = False  # obeyed; it is not about an image that waits then
        stop()


def _stop(jobs: RunQueue) -> None:
    job = jobs.current
    if job is not None:
        jobs.interrupt(job.id)
