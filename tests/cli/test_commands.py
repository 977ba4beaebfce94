"""Commands sent twice, out of order, too early and too late; two browsers at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.reliability.small import SETTINGS, begin, image
from benchmarks.results import model_checksum, pair_hashes
from tests.waiting import until
from unziplora.app.job import ENDED, Job
from unziplora.app.job_queue import COMMANDS
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.training.events import Finished, StepDone

pytestmark = pytest.mark.slow  # most of them train
GIVEN = {**SETTINGS, "subject": "cat", "style": "ink", "preview_steps": 1}


@pytest.fixture
def service(host: Any, tmp_path: Path) -> Service:
    image().save(tmp_path / "image.png")
    return Service(lambda: host, lambda: tmp_path / "out")


@pytest.fixture(scope="module")
def undisturbed(
    make_host: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """The hashes of a pair that was trained in one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "whole"
    list(begin(make_host(), out))
    return pair_hashes(out)


def test_any_order_of_commands_ends_with_the_files_of_an_undisturbed_run(
    host: Any, service: Service, tmp_path: Path
) -> None:
    list(begin(host, tmp_path / "whole", steps=16))
    before, rng = model_checksum(host), Random(2)
    job = service.start(tmp_path / "image.png", {**GIVEN, "steps": 16})
    sent = 0
    while job.state != "completed" and sent < 400:
        service.jobs.send(job.id, rng.choice(COMMANDS))
        time.sleep(rng.random() / 50)
        sent += 1
        if job.state in ("stopped", "paused", "failed"):
            assert job.state != "failed", job.error
            service.jobs.send(job.id, "resume")
            service.jobs.send(job.id, "resume")
        if job.state == "cancelled":  # in the queue, before its first step
            job = service.start(tmp_path / "image.png", {**GIVEN, "steps": 16}, overwrite=True)
    until(lambda: job.state != "running")
    if job.state != "completed":
        service.jobs.send(job.id, "resume")
    until(lambda: job.state == "completed")
    assert pair_hashes(tmp_path / "out") == pair_hashes(tmp_path / "whole")
    assert model_checksum(host) == before
    steps = [event.step for _, event in job.events() if isinstance(event, StepDone)]
    assert steps == list(range(1, 17))


def test_of_many_browsers_that_press_train_at_once_one_starts_the_run(
    service: Service, tmp_path: Path
) -> None:
    started, refused = [], []

    def press() -> None:
        try:
            started.append(service.start(tmp_path / "image.png", GIVEN))
        except InvalidInput as error:
            refused.append(str(error))

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert len(refused) == 7
    until(lambda: started[0].state in ENDED)
    assert started[0].state == "completed"


def test_runs_without_a_name_that_start_at_once_are_refused_or_get_names_of_their_own(
    service: Service, tmp_path: Path
) -> None:
    jobs: list[Job] = []
    given = {**GIVEN, "name": None, "steps": 1}

    def press() -> None:
        with contextlib.suppress(InvalidInput):
            jobs.append(service.start(tmp_path / "image.png", given))

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.name for job in jobs}) == len(jobs) >= 1
    until(lambda: all(job.state in ENDED for job in jobs))
    assert {job.state for job in jobs} == {"completed"}


def test_a_run_cancelled_in_the_queue_leaves_nothing_and_frees_its_name(
    service: Service, tmp_path: Path
) -> None:
    first = service.start(tmp_path / "image.png", {**GIVEN, "name": "first", "steps": 160})
    second = service.start(tmp_path / "image.png", {**GIVEN, "name": "second"})
    for _ in range(2):
        service.jobs.send(second.id, "cancel")
    for command in COMMANDS:  # too late
        if command != "resume":
            service.jobs.send(second.id, command)
    assert second.state == "cancelled"
    third = service.start(tmp_path / "image.png", {**GIVEN, "name": "second"})
    service.jobs.send(first.id, "stop")
    until(lambda: third.state in ENDED)
    assert third.state == "completed"
    assert second.step == 0


@pytest.mark.parametrize("command", ["stop", "stop and save", "pause"])
@pytest.mark.parametrize("step", [1, 6])
def test_interrupted_in_its_first_or_last_step_a_run_ends_as_if_it_had_not_been(
    host: Any, undisturbed: tuple[str, ...], tmp_path: Path, command: str, step: int
) -> None:
    import unziplora

    made = begin(host, tmp_path / "out")
    sent = "stop" if command == "pause" else command
    denoise, steps = host.denoise, []

    def interrupting(*given: Any) -> Any:
        steps.append(1)
        if len(steps) == step:
            made.send(sent)  # type: ignore[arg-type]
        return denoise(*given)

    host.denoise = interrupting
    events = list(made)
    host.denoise = denoise
    assert isinstance(events[-1], Finished)
    assert events[-1].step == step
    if made.folder.state.is_file():
        list(unziplora.resume(made.folder.path, host=host))
    assert pair_hashes(tmp_path / "out") == undisturbed


def test_pausing_is_not_forgotten_by_a_command_that_comes_after_it(
    service: Service, tmp_path: Path
) -> None:
    job = service.start(tmp_path / "image.png", {**GIVEN, "steps": 160})
    until(lambda: job.step >= 1)
    service.jobs.send(job.id, "pause")
    service.jobs.send(job.id, "save now")
    until(lambda: job.state != "running")
    assert job.state == "paused"
    service.jobs.send(job.id, "cancel")
    assert job.state == "stopped"


def test_a_run_is_not_resumed_beside_another_of_its_name(service: Service, tmp_path: Path) -> None:
    old = service.start(tmp_path / "image.png", {**GIVEN, "steps": 160})
    until(lambda: old.step >= 1)
    service.jobs.send(old.id, "stop")
    until(lambda: old.state == "stopped")
    new = service.start(tmp_path / "image.png", {**GIVEN, "steps": 160}, overwrite=True)
    with pytest.raises(InvalidInput, match="running already"):
        service.jobs.send(old.id, "resume")
    service.jobs.send(new.id, "stop")
    until(lambda: new.state in ENDED)


def test_more_runs_than_a_queue_should_hold_are_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unziplora.app.job_queue.MOST_WAITING", 2)
    first = service.start(tmp_path / "image.png", {**GIVEN, "name": "first", "steps": 160})
    until(lambda: first.state == "running")
    waiting = [
        service.start(tmp_path / "image.png", {**GIVEN, "name": name}) for name in ("a", "b")
    ]
    with pytest.raises(InvalidInput, match="waiting already"):
        service.start(tmp_path / "image.png", {**GIVEN, "name": "c"})
    for job in (*waiting, first):
        service.jobs.send(job.id, "stop")
    until(lambda: first.state in ENDED)
