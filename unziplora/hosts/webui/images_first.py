"""Images go first: one that is asked for while a run trains is drawn between two steps.

File and line numbers are those of Automatic1111 1.10.1.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Set
from functools import wraps
from typing import Any

from unziplora.hosts.webui.options import images_first
from unziplora.hosts.webui.txt2img import webui

_PAUSE = 0.02  # seconds between two looks
_GONE = 10.0  # seconds after which an image that neither waits nor begins has failed
_PATCHED = "_unziplora_queue_text"
_failed: set[str] = set()  # listed as waiting, and not there


def waiting() -> Set[str]:
    """The images that wait for the WebUI's queue, by its own ids (modules/progress.py:53). Those
    that failed before their turn stay listed there for ever, and are left out once that is seen."""
    listed = frozenset(webui("progress").pending_tasks)
    _failed.intersection_update(listed)
    return listed - _failed


def wanted() -> bool:
    """Whether an image waits that may go first."""
    return images_first() and bool(waiting())


def take_turn(ended: Callable[[], bool], patience: float = 3.0) -> bool:
    """Waits for the WebUI's queue, which is held then: True. False, and it is not held, once
    `ended()` is true.

    The images that wait now have begun before: the queue gives a lock that is free to whoever comes
    first, also before the one that it has just woken (modules/fifo_lock.py:13). patience: seconds
    for which the queue is free until an image that does not begin counts as failed.
    """
    lock, first = webui("call_queue").queue_lock, waiting()
    free_since: float | None = None
    while left := first & waiting():
        if ended():
            return False
        if lock.acquire(False):
            lock.release()
            free_since = free_since or time.monotonic()
            if time.monotonic() - free_since > patience:
                _failed.update(left)
        else:
            free_since = None
        time.sleep(_PAUSE)
    return _acquire(lock, ended)


def _acquire(lock: Any, ended: Callable[[], bool]) -> bool:
    """In a thread, since a turn in the queue cannot be waited for in part."""
    mine, given_up, either = threading.Event(), threading.Event(), threading.Lock()

    def wait() -> None:
        lock.acquire()
        with either:
            if given_up.is_set():
                lock.release()
            mine.set()

    threading.Thread(target=wait, name="unziplora-turn", daemon=True).start()
    while not mine.wait(_PAUSE):
        with either:
            if not mine.is_set() and ended():
                given_up.set()
                return False
    return True


def pass_on_interrupt() -> bool:
    """Interrupt or Skip, pressed while images wait, is about them: whether it was. Called between
    two steps, and last thing before the model is given away: what begins then clears the flags."""
    state: Any = webui("shared").state
    tasks = waiting()
    if not tasks or not (state.interrupted or state.skipped):
        return False
    state.interrupted = state.skipped = False
    drop(tasks)
    return True


def release() -> None:
    """Gives the WebUI's queue to whoever is next."""
    pass_on_interrupt()
    webui("call_queue").queue_lock.release()


def drop(tasks: Set[str]) -> None:
    """Interrupts images that have not begun as soon as they do: what a WebUI's own Interrupt would
    do to them, if they were drawn now."""

    def watch() -> None:
        left, seen = set(tasks), time.monotonic()
        while left and time.monotonic() - seen < _GONE:
            progress = webui("progress")
            if progress.current_task in left:  # its job has begun, which clears older interrupts
                left.discard(progress.current_task)
                webui("shared").state.interrupt()
            if left & waiting():
                seen = time.monotonic()
            time.sleep(_PAUSE)

    threading.Thread(target=watch, name="unziplora-interrupt", daemon=True).start()


def say_in_queue(training: Callable[[], str | None]) -> None:
    """Where an image waits for a run, its progress bar says so. training: the run's line, or None
    while there is none.

    The WebUI says "In queue: 1/1" (modules/progress.py:88), in a function that it puts behind an
    address when it starts.
    """
    progress = webui("progress")
    asked = getattr(progress, "progressapi", None)
    if asked is None or hasattr(asked, _PATCHED):
        return
    try:
        # with the types themselves: Forge's are names (its modules/progress.py:1), which FastAPI
        # 0.104 looks for in the module of the function that it is handed, and that is ours
        signature = inspect.signature(asked, eval_str=True)
    except NameError:  # the bar says then what the WebUI says
        return

    @wraps(asked)
    def answer(req: Any) -> Any:
        given = asked(req)
        line = training() if getattr(given, "queued", False) else None
        if line is not None:
            given.textinfo = f"Training: {line}, {_place(given.textinfo)}"
        return given

    setattr(answer, _PATCHED, True)
    answer.__signature__ = signature  # type: ignore[attr-defined]
    progress.progressapi = answer


def _place(told: Any) -> str:
    """In the queue of images. told: "In queue: 2/3"."""
    if not images_first():
        return "your image comes after it"
    place = str(told).rpartition(": ")[2]
    return "your image is next" if place.startswith("1/") else f"your image is {place} in the queue"
