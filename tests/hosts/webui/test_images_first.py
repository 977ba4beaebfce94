"""Images go first: who waits, whose turn it is, and what Interrupt, Skip and the bar mean then."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict, deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.hosts.webui.conftest import StandIn
from tests.waiting import until
from unziplora.hosts.webui import images_first, progress
from unziplora.hosts.webui.reload import ReloadGate
from unziplora.hosts.webui.txt2img import JOB
from unziplora.training.events import StepDone
from unziplora.ziplora.learn import Losses, MergeStep

STEP = StepDone(210, 600, 0.1, None, 1e-4, {"content": 1.0, "style": 1.0}, 1.0, None, None)


class Turns:
    """A lock that is handed on in the order in which it was asked for, unless somebody comes in the
    moment in which it is free, as the WebUIs' is (modules/fifo_lock.py)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.held = False
        self.queue: deque[object] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        me = object()
        with self._changed:
            if self.held and not blocking:
                return False
            if self.held:
                self.queue.append(me)
                self._changed.wait_for(lambda: me not in self.queue and not self.held)
            self.held = True
        return True

    def release(self) -> None:
        with self._changed:
            self.held = False
            if self.queue:
                self.queue.popleft()
            self._changed.notify_all()


class State(SimpleNamespace):
    def begin(self, job: str) -> None:
        self.job, self.interrupted, self.skipped = job, False, False

    def interrupt(self) -> None:
        self.interrupted = True


@pytest.fixture
def webui(stand_in: StandIn) -> Any:
    """A WebUI whose queue a run has."""
    lock, pending = Turns(), OrderedDict[str, float]()
    state = State(job=JOB, interrupted=False, skipped=False)
    shared = stand_in.fill("shared", state=state, demo=None)
    stand_in.fill("call_queue", queue_lock=lock)

    def progressapi(req: Any) -> Any:
        place = list(pending).index(req.id_task) + 1 if req.id_task in pending else 0
        text = f"In queue: {place}/{len(pending)}"
        return SimpleNamespace(queued=place > 0, textinfo=text)

    shown = stand_in.fill(
        "progress", pending_tasks=pending, current_task=None, progressapi=progressapi
    )
    lock.acquire()
    return SimpleNamespace(lock=lock, state=state, shared=shared, progress=shown, pending=pending)


def asked_for(webui: Any, task: str, drawn: list[str]) -> threading.Thread:
    """An image that is asked for: as the WebUI does it, from its place in the queue to its end."""

    def draw() -> None:
        webui.lock.acquire()
        webui.state.begin(task)
        webui.pending.pop(task)
        webui.progress.current_task = task
        until(lambda: webui.state.interrupted or task not in interrupted)
        drawn.append(f"{task} interrupted" if webui.state.interrupted else task)
        webui.progress.current_task = None
        webui.lock.release()

    interrupted = {"task(b)"}
    webui.pending[task] = 1.0
    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    until(lambda: webui.lock.queue)
    return thread


def test_an_image_that_failed_before_its_turn_is_waited_for_once(webui: Any) -> None:
    assert not images_first.wanted()
    webui.pending["task(failed)"] = 1.0  # stays listed for ever
    assert images_first.wanted()
    webui.lock.release()
    assert images_first.take_turn(lambda: False, patience=0.1)
    assert not images_first.wanted()
    webui.pending["task(new)"] = 1.0
    assert images_first.waiting() == {"task(new)"}


def test_an_image_that_waits_is_drawn_before_the_run_has_its_turn_again(webui: Any) -> None:
    drawn: list[str] = []
    asked_for(webui, "task(a)", drawn)
    assert images_first.wanted()
    webui.shared.opts.unziplora_images_first = False
    assert not images_first.wanted()
    webui.lock.release()
    assert images_first.take_turn(lambda: False)
    assert drawn == ["task(a)"]
    assert webui.lock.held


def test_a_run_that_ends_meanwhile_waits_no_longer_and_keeps_nobody_out(webui: Any) -> None:
    assert not images_first.take_turn(lambda: True)  # while something else has the model
    webui.lock.release()
    webui.lock.acquire()  # by who comes next
    webui.lock.release()


class Queue:
    """Of runs, with one that is running."""

    def __init__(self) -> None:
        self.current = SimpleNamespace(id="1", name="a", step=210, steps=600, state="running")
        self.on_event: Any = lambda event: None
        self.interrupted: list[str] = []

    def all(self) -> list[Any]:
        return [self.current]

    def interrupt(self, job_id: str) -> None:
        self.interrupted.append(job_id)


@pytest.mark.parametrize("pressed", ["interrupted", "skipped"])
def test_interrupt_and_skip_are_about_the_image_that_waits(webui: Any, pressed: str) -> None:
    queue, drawn = Queue(), list[str]()
    progress.follow(queue, ReloadGate())
    asked_for(webui, "task(b)", drawn)
    setattr(webui.state, pressed, True)
    queue.on_event(STEP)
    assert not queue.interrupted
    assert not webui.state.interrupted
    webui.lock.release()  # the run gives way
    until(lambda: drawn)
    assert drawn == ["task(b) interrupted"]


def test_an_interrupt_in_the_moment_of_giving_way_is_about_the_image(webui: Any) -> None:
    drawn: list[str] = []
    asked_for(webui, "task(b)", drawn)
    webui.state.interrupt()
    images_first.release()
    until(lambda: drawn)
    assert drawn == ["task(b) interrupted"]


def test_interrupt_stops_and_saves_the_run_where_no_image_waits(webui: Any) -> None:
    queue = Queue()
    progress.follow(queue, ReloadGate())
    webui.state.skipped = True
    queue.on_event(STEP)
    assert not queue.interrupted
    webui.state.interrupted = True
    queue.on_event(STEP)
    assert queue.interrupted == ["1"]


def test_interrupt_ends_a_merge_that_learns_and_the_bar_shows_it(webui: Any) -> None:
    stopped: list[bool] = []
    merges = SimpleNamespace(on_event=None, stop=lambda: stopped.append(True))
    progress.follow_merges(merges, ReloadGate())
    step = MergeStep(7, 100, Losses(0.1, 0.1, 1.0), None)
    merges.on_event(step)
    assert (webui.state.sampling_step, webui.state.sampling_steps) == (7, 100)
    assert not stopped
    webui.state.interrupted = True
    merges.on_event(step)
    assert stopped == [True]
    assert not webui.state.interrupted


def test_an_image_that_waits_says_for_what(webui: Any) -> None:
    queue = Queue()
    progress.follow(queue, ReloadGate())
    progress.follow(queue, ReloadGate())  # the page was reloaded

    def text(task: str) -> str:
        return str(webui.progress.progressapi(SimpleNamespace(id_task=task)).textinfo)

    webui.pending["task(a)"] = webui.pending["task(b)"] = 1.0
    assert text("task(a)") == "Training: step 210 of 600, your image is next"
    assert text("task(b)") == "Training: step 210 of 600, your image is 2/2 in the queue"
    assert text("task(drawn)") == "In queue: 0/2"
    webui.shared.opts.unziplora_images_first = False
    assert text("task(a)") == "Training: step 210 of 600, your image comes after it"
    webui.state.job = "task(a)"  # another image is drawn now
    assert text("task(b)") == "In queue: 2/2"


FORGES = """
from __future__ import annotations
from types import SimpleNamespace

class ProgressRequest:
    id_task = "task(a)"

def progressapi(req: ProgressRequest) -> SimpleNamespace:
    return SimpleNamespace(queued=False, textinfo=req.id_task)
"""


def test_the_bars_function_keeps_its_types_for_the_web_server(webui: Any) -> None:
    """Forge's are names of its own module, in which FastAPI 0.104 does not look for them."""
    names: dict[str, Any] = {}
    exec(FORGES, names)
    original = webui.progress.progressapi = names["progressapi"]
    progress.follow(Queue(), ReloadGate())
    patched = webui.progress.progressapi
    assert patched is not original
    found = inspect.signature(patched)
    assert found.parameters["req"].annotation is names["ProgressRequest"]
    assert found.return_annotation is SimpleNamespace
    assert patched(names["ProgressRequest"]()).textinfo == "task(a)"


def test_a_bar_whose_types_nobody_knows_is_left_alone(webui: Any) -> None:
    names: dict[str, Any] = {}
    exec(FORGES.replace("class ProgressRequest", "class Renamed"), names)
    original = webui.progress.progressapi = names["progressapi"]
    progress.follow(Queue(), ReloadGate())
    assert webui.progress.progressapi is original
