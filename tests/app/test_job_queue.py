"""The queue of runs: one at a time, told what to do from anywhere, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from unziplora import python_api as api
from unziplora.app.job import ENDED, Job
from unziplora.app.job_queue import Jobs
from unziplora.errors import InvalidInput, NotFound
from unziplora.training.events import StepDone
from unziplora.training.settings import Settings

pytestmark = pytest.mark.slow  # most of them train
WORDS = {"subject": "tree", "style": "flat drawing"}


@pytest.fixture
def submit(host: Any, image_file: Path, tmp_path: Path) -> Callable[..., Job]:
    """Submits a real run on the documented host."""

    def submit(jobs: Jobs, name: str, steps: int = 4, **settings: Any) -> Job:
        def begin() -> Any:
            return api.train(
                image_file, **WORDS, host=host, out=tmp_path,
                settings={"name": name, "steps": steps, "rank": 2, **settings},
            )  # fmt: skip

        return jobs.submit(name, begin, lambda: api.resume(tmp_path / name, host=host))

    return submit


def ended(job: Job) -> bool:
    return job.state in ENDED


def test_runs_go_on_one_after_the_other_and_leave_their_files(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    first, second = submit(jobs, "first"), submit(jobs, "second")
    until(lambda: ended(second))
    assert [job.state for job in (first, second)] == ["completed", "completed"]
    assert set(second.files) == {"content", "style"}
    assert all(path.exists() for path in second.files.values())
    numbers = [number for number, _ in first.events()]
    assert numbers == list(range(len(numbers)))


def test_a_waiting_run_is_moved_to_the_front(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    with jobs.reserve_model():
        first, second, third = (submit(jobs, name, steps=1) for name in ("a", "b", "c"))
        assert jobs.waiting() == [first, second, third]
        jobs.send(third.id, "run next")
        assert jobs.waiting() == [third, first, second]
        assert jobs.shown() is third
    until(lambda: ended(second))
    assert third.ended < first.ended < second.ended
    jobs.send(third.id, "run next")  # too late
    assert third.state == "completed"


def test_events_can_be_read_from_any_number_on_and_name_no_folder(
    submit: Callable[..., Job], tmp_path: Path
) -> None:
    jobs = Jobs()
    job = submit(jobs, "told")
    until(lambda: ended(job))
    told = job.as_json(since=0)
    steps = [event for event in told["events"] if event["type"] == "StepDone"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert job.as_json(since=3)["events"] == told["events"][3:]
    assert str(tmp_path) not in str(told)
    assert told["files"]["content"] == "told_content.safetensors"


def test_a_paused_run_waits_and_resumes_to_the_same_step_count(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    job = submit(jobs, "paused", steps=16)
    until(lambda: job.step >= 2)
    jobs.send(job.id, "pause")
    until(lambda: job.state == "paused")
    stopped_at = job.step
    assert 2 <= stopped_at < 16
    jobs.send(job.id, "resume")
    until(lambda: ended(job))
    assert job.state == "completed"
    steps = [event.step for _, event in job.events() if isinstance(event, StepDone)]
    assert steps == list(range(1, 17))


def test_stop_keeps_the_state_and_the_next_run_begins(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    job, following = submit(jobs, "stopped", steps=500), submit(jobs, "following")
    until(lambda: job.step >= 1)
    jobs.send(job.id, "stop")
    jobs.send(job.id, "stop")  # pressed twice
    until(lambda: ended(following))
    assert (job.state, following.state) == ("stopped", "completed")
    assert job.step < 500


def test_a_waiting_run_can_be_cancelled(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    first, second = submit(jobs, "one", steps=500), submit(jobs, "two")
    jobs.send(second.id, "cancel")
    assert second.state == "cancelled"
    jobs.send(first.id, "stop")
    until(lambda: ended(first))
    assert second.step == 0


def test_waiting_runs_can_change_places(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    with jobs.reserve_model():
        first, second, third = (submit(jobs, name, steps=1) for name in ("one", "two", "three"))
        jobs.move(third.id, 0)
        jobs.move(first.id, 99)
        assert jobs.waiting() == [third, second, first]
    until(lambda: ended(first))
    assert third.ended < second.ended < first.ended
    with pytest.raises(InvalidInput, match="not waiting"):
        jobs.move(second.id, 0)
    with pytest.raises(NotFound):
        jobs.move("nothing", 0)


def test_a_command_before_the_run_exists_is_obeyed_when_it_does(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    jobs, gate = Jobs(), threading.Event()

    def slow() -> Any:
        gate.wait(30)
        return api.train(
            image_file, **WORDS, host=host, out=tmp_path,
            settings={"name": "slow", "steps": 500, "rank": 2},
        )  # fmt: skip

    job = jobs.submit("slow", slow, slow)
    until(lambda: job.state == "running")
    jobs.send(job.id, "stop and save")
    gate.set()
    until(lambda: ended(job))
    assert (job.state, job.step) == ("stopped", 1)
    assert set(job.files) == {"content", "style"}


def test_a_run_knows_whether_its_user_or_the_programs_interrupt_stopped_it(
    submit: Callable[..., Job],
) -> None:
    jobs = Jobs()
    job = submit(jobs, "once", steps=500)
    until(lambda: job.step)
    jobs.interrupt(job.id)
    until(lambda: ended(job))
    assert (job.state, set(job.files)) == ("stopped", {"content", "style"})
    assert job.interrupted
    jobs.interrupt(job.id)  # too late
    assert job.state == "stopped"
    reached = job.step
    jobs.send(job.id, "resume")
    until(lambda: job.step > reached)
    jobs.send(job.id, "stop and save")
    until(lambda: ended(job))
    assert job.state == "stopped"
    assert not job.interrupted


def test_a_run_that_fails_says_why_and_the_next_one_runs(submit: Callable[..., Job]) -> None:
    jobs = Jobs()

    def broken() -> Any:
        raise ZeroDivisionError("surprise")

    job = jobs.submit("broken", broken, broken)
    following = submit(jobs, "after")
    until(lambda: ended(following))
    assert job.state == "failed"
    assert job.error is not None
    assert "surprise" in job.error
    assert "Traceback" not in job.error
    assert following.state == "completed"


def test_two_runs_of_one_name_cannot_wait_together(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    job = submit(jobs, "same", steps=500)
    with pytest.raises(InvalidInput, match="same"):
        submit(jobs, "same")
    jobs.send(job.id, "stop")
    until(lambda: ended(job))


def test_an_unknown_command_is_refused(submit: Callable[..., Job]) -> None:
    jobs = Jobs()
    job = submit(jobs, "named")
    for command in ("", "explode", "stop;rm"):
        with pytest.raises(InvalidInput, match="no command"):
            jobs.send(job.id, command)
    until(lambda: ended(job))
    assert job.state == "completed"


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no run"):
        Jobs().send("nothing", "stop")


def test_a_run_that_waits_for_its_first_turn_is_taken_back_to_be_changed() -> None:
    jobs = Jobs()

    def never() -> Any:
        raise AssertionError

    with jobs.reserve_model():
        settings = Settings("cat", "ink")
        job = jobs.submit("a", never, never, b"an image", settings)
        other = jobs.submit("b", never, never)
        assert job.editable
        assert jobs.take_back(job.id) == (b"an image", settings)
        assert job.state == "cancelled"
        assert jobs.waiting() == [other]
        for gone in (job, other):  # cancelled; a resumed one, whose image is on the disk
            with pytest.raises(InvalidInput, match="cannot be edited"):
                jobs.take_back(gone.id)
        jobs.send(other.id, "cancel")
