"""What the queue holds, shows and says of runs: as little as it needs, what is news, what is so."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.app.test_job_queue import ended
from tests.waiting import until
from unziplora.app import job_queue
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui import pair_html

SETTINGS = {"subject": "tree", "style": "ink", "steps": 500, "rank": 2}


@pytest.fixture
def service(host: Any, tmp_path: Path) -> Service:
    return Service(lambda: host, lambda: tmp_path / "out")


def large_image(path: Path) -> bytes:
    """A file of a few kB, 75 MB as pixels."""
    Image.new("RGB", (5000, 5000), "teal").save(path)
    return path.read_bytes()


def images_of(size: tuple[int, int]) -> int:
    gc.collect()
    return sum(isinstance(kept, Image.Image) and kept.size == size for kept in gc.get_objects())


@pytest.mark.slow
def test_a_waiting_run_holds_its_images_file_and_a_cancelled_one_nothing(
    service: Service, tmp_path: Path
) -> None:
    data = large_image(tmp_path / "large.png")
    with service.jobs.reserve_model():  # so that all of them wait
        jobs = [service.start(data, {**SETTINGS, "name": f"run-{n}"}) for n in range(3)]
        assert images_of((5000, 5000)) == 0
        assert [job.size for job in jobs] == [len(data)] * 3
        for job in jobs:
            service.jobs.send(job.id, "cancel")
        assert [(job.state, job.size) for job in jobs] == [("cancelled", 0)] * 3
        held = [cell.cell_contents for job in jobs for cell in job.begin.__closure__ or ()]
        assert not any(isinstance(value, bytes) for value in held)


@pytest.mark.slow
def test_the_images_that_wait_have_a_limit_together(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = large_image(tmp_path / "large.png")
    monkeypatch.setattr(job_queue, "MOST_WAITING_BYTES", 2 * len(data))
    with service.jobs.reserve_model():
        jobs = [service.start(data, SETTINGS) for _ in range(2)]
        with pytest.raises(InvalidInput, match="2 runs are waiting"):
            service.start(data, SETTINGS)
        for job in jobs:
            service.jobs.send(job.id, "cancel")


def test_what_ended_last_is_shown_while_another_is_paused(
    service: Service, image_file: Path
) -> None:
    fox = service.start(image_file, {**SETTINGS, "name": "fox"})
    until(lambda: fox.step >= 1)
    service.jobs.send(fox.id, "pause")
    until(lambda: fox.state == "paused")
    assert service.jobs.shown() is fox
    dragon = service.start(image_file, {**SETTINGS, "name": "dragon", "steps": 2})
    assert service.jobs.shown() is dragon
    until(lambda: ended(dragon))
    assert dragon.state == "completed"
    assert service.jobs.shown() is dragon
    service.jobs.send(fox.id, "stop")
    assert service.jobs.shown() is dragon


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_said_of_a_failed_runs_state_is_what_is_on_the_disk(
    service: Service, host: Any, image_file: Path, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken:  # no file can be opened any more, as when handles have run out

        def refuse(*arguments: Any, **named: Any) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("unziplora.training.run_folder.write_tensors", refuse)
    encode = host.encode_prompts
    assert encode is not None

    def fail(event: Any) -> None:
        if type(event).__name__ == "StepDone" and event.step == 3:
            raise SystemExit("surprise")

    monkeypatch.setattr(service.jobs, "on_event", fail)
    job = service.start(image_file, {**SETTINGS, "name": "fox"})
    until(lambda: ended(job))
    assert job.state == "failed"
    assert "surprise" in str(job.error)
    if broken:
        assert "No state of it is saved. Start it again." in str(job.error)
        assert service.run_folder("fox").saved_step() is None
    else:
        assert "Its state of step 3 is saved. Resume it." in str(job.error)
        assert service.run_folder("fox").saved_step() == 3


def test_a_run_that_was_killed_before_its_first_state_is_listed_and_can_be_started_again(
    service: Service, make_host: Callable[[], Any], image_file: Path, tmp_path: Path
) -> None:
    job = service.start(image_file, {**SETTINGS, "name": "fox", "steps": 3})
    until(lambda: job.step >= 1)
    service.jobs.send(job.id, "stop")
    until(lambda: ended(job))
    service.run_folder("fox").state.unlink(missing_ok=True)
    for path in (tmp_path / "out").glob("fox_*"):
        path.unlink()

    restarted = Service(make_host, lambda: tmp_path / "out")  # the program, begun once more
    (run,) = restarted.runs()
    assert (run.name, run.has_state, run.step) == ("fox", False, None)
    assert run.image is not None
    shown = pair_html.runs(restarted.runs())
    assert "no saved state" in shown
    assert "Start again" in shown
    assert "Resume<" not in shown
    assert restarted.resumable() == []
    with pytest.raises(InvalidInput, match="Start it again"):
        restarted.resume("fox")
    job = restarted.restart("fox")
    until(lambda: ended(job))
    assert (job.state, job.step) == ("completed", 3)
    assert restarted.runs() == []


def test_a_run_without_a_state_can_be_deleted(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    job = service.start(image_file, {**SETTINGS, "name": "fox"})
    until(lambda: job.step >= 1)
    service.jobs.send(job.id, "stop")
    until(lambda: ended(job))
    service.run_folder("fox").state.unlink()
    service.delete_run("fox")
    assert service.runs() == []
    assert service.start(image_file, {**SETTINGS, "name": "fox", "steps": 1}).name == "fox"


def test_when_the_program_ends_the_run_saves_its_state_and_nothing_else_begins(
    service: Service, image_file: Path
) -> None:
    fox = service.start(image_file, {**SETTINGS, "name": "fox"})
    ship = service.start(image_file, {**SETTINGS, "name": "ship"})
    until(lambda: fox.step >= 2)
    service.close()
    assert (fox.state, ship.state) == ("stopped", "cancelled")
    assert service.run_folder("fox").saved_step() == fox.step
    assert not service.run_folder("ship").exists()


def test_closing_waits_for_nothing_where_nothing_was_learned(service: Service) -> None:
    service.close()
    assert service.jobs.current is None
