"""Where runs lie: hidden from WebUIs' lists, and those of earlier versions are still found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unziplora
from tests.waiting import until
from unziplora.app.job import ENDED
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.training.events import Finished, StepDone
from unziplora.training.run_folder import RunFolder, find_run, list_runs, run_path

WORDS = {"subject": "fox", "style": "ink"}
SETTINGS = {"steps": 4, "rank": 2, "lr": 1e-3, "resolution": 64}


def begin(image: Path, host: Any, out: Path, name: str = "fox", **options: Any) -> Any:
    settings = {**SETTINGS, "name": name}
    return unziplora.train(
        image, subject="fox", style="ink", host=host, settings=settings, out=out, **options
    )


def stop_at_once(image: Path, host: Any, out: Path, name: str = "fox") -> RunFolder:
    run = begin(image, host, out, name)
    run.send("stop")
    list(run)
    return RunFolder(run.folder.path)


def as_an_earlier_version_left_it(folder: RunFolder) -> RunFolder:
    older = RunFolder(folder.path.rename(folder.out / folder.name))
    older.image.rename(older.path / "picture.png")
    return older


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_only_the_pair_is_seen_in_the_output_folder(
    make_host: Callable[[], Any], image_file: Path, out: Path
) -> None:
    list(begin(image_file, make_host(), out))
    seen = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert {Path(name).suffix for name in seen} == {".safetensors", ".json"}
    assert all(name.startswith(("fox_content.", "fox_style.")) for name in seen)
    assert run_path(out, "fox") == out / ".unziplora" / "fox"


def test_a_run_of_an_earlier_version_is_listed_resumed_and_deleted(
    make_host: Callable[[], Any], image_file: Path, out: Path
) -> None:
    older = as_an_earlier_version_left_it(stop_at_once(image_file, make_host(), out))
    service = Service(make_host, lambda: out)

    assert service.resumable() == ["fox"]
    assert service.run_folder("fox").path == older.path
    assert service.run_folder("fox").image.read_bytes()[:4] == b"\x89PNG"

    events = list(unziplora.resume(out / "fox", host=make_host()))
    assert [e.step for e in events if isinstance(e, StepDone)] == [2, 3, 4]
    assert (out / "fox_content.safetensors").is_file()
    assert not (out / ".unziplora" / "fox").exists()

    service.delete_run("fox")
    assert list_runs(out) == []
    assert {path.name for path in older.path.iterdir()} == {"run.lock", "previews"} & {
        path.name for path in older.path.iterdir()
    }


def test_a_run_is_resumed_by_its_output_folder_and_name(
    make_host: Callable[[], Any], image_file: Path, out: Path
) -> None:
    folder = stop_at_once(image_file, make_host(), out)
    assert find_run(out / "fox").path == folder.path
    events = list(unziplora.resume(out / "fox", host=make_host()))
    assert isinstance(events[-1], Finished)


def test_the_name_of_a_run_of_an_earlier_version_is_taken(
    make_host: Callable[[], Any], image_file: Path, out: Path
) -> None:
    older = as_an_earlier_version_left_it(stop_at_once(image_file, make_host(), out))
    with pytest.raises(InvalidInput, match="There is a run named fox"):
        begin(image_file, make_host(), out)
    list(begin(image_file, make_host(), out, overwrite=True))
    assert {path.name for path in older.path.glob("*.png")} == {"image.png"}


def test_runs_are_listed_whether_or_not_they_have_a_state(
    make_host: Callable[[], Any], image_file: Path, out: Path
) -> None:
    stop_at_once(image_file, make_host(), out, "with")
    stop_at_once(image_file, make_host(), out, "without").state.unlink()
    assert [(run.name, run.has_state) for run in list_runs(out)] == [
        ("with", True),
        ("without", False),
    ]


def test_folders_and_links_of_others_are_no_runs(
    make_host: Callable[[], Any], image_file: Path, out: Path, tmp_path: Path
) -> None:
    elsewhere = stop_at_once(image_file, make_host(), tmp_path / "elsewhere", "linked")
    mine = out / "my loras"
    mine.mkdir(parents=True)
    (mine / "settings.json").write_text('{"theme": "dark"}')
    (out / ".unziplora").mkdir()
    (out / ".unziplora" / "linked").symlink_to(elsewhere.path)
    (out / "linked").symlink_to(elsewhere.path)
    assert list_runs(out) == []
    assert run_path(out, "my loras") == out / ".unziplora" / "my loras"


@pytest.fixture
def apart(make_host: Callable[[], Any], out: Path, tmp_path: Path) -> Service:
    """Of a WebUI: runs lie outside the folder of LoRAs, whose hidden folders it lists."""
    out.mkdir()
    return Service(make_host, lambda: out, runs_at=lambda: tmp_path / "runs")


def ended(service: Service, job: Any) -> None:
    until(lambda: job.state in ENDED or job.state == "paused")


def test_where_runs_lie_apart_nothing_but_pairs_is_below_the_output_folder(
    apart: Service, image_file: Path, out: Path, tmp_path: Path
) -> None:
    job = apart.start(image_file, {**SETTINGS, **WORDS, "name": "fox", "snapshot_every": 2})
    ended(apart, job)
    assert job.state == "completed", job.error
    assert {path.suffix for path in out.rglob("*")} == {".safetensors", ".json"}
    assert len(list(out.rglob("*.safetensors"))) == 2
    assert apart.run_folder("fox").path == tmp_path / "runs" / "fox"
    assert apart.snapshot("fox", 2).keys() == {"content", "style"}
    assert apart.past_runs() == ["fox"]
    progress = apart.run_folder("fox").progress
    assert apart.past_run("fox")[1]
    progress.rename(tmp_path / "elsewhere.csv")
    progress.symlink_to(tmp_path / "elsewhere.csv")  # links are not followed
    assert apart.past_run("fox")[1] == []
    assert apart.rename("fox", "wolf").name == "wolf"
    assert apart.run_folder("wolf").exists()


def test_a_stopped_run_that_lies_apart_is_listed_resumed_and_deleted(
    apart: Service, image_file: Path, out: Path
) -> None:
    job = apart.start(image_file, {**SETTINGS, **WORDS, "name": "fox", "steps": 3000})
    until(lambda: job.step > 1)
    apart.jobs.send(job.id, "stop")
    ended(apart, job)
    assert [(run.name, run.has_state) for run in apart.runs()] == [("fox", True)]
    again = apart.resume("fox")
    until(lambda: again.step > job.step)
    apart.jobs.send(again.id, "stop and save")
    ended(apart, again)
    assert again.state == "stopped", again.error
    assert [pair.name for pair in apart.pairs()] == ["fox"]
    apart.delete_run("fox")
    assert apart.runs() == []


def test_runs_of_an_earlier_version_are_found_where_runs_lie_apart_now(
    make_host: Callable[[], Any], image_file: Path, out: Path, tmp_path: Path
) -> None:
    stop_at_once(image_file, make_host(), out, "hidden")
    as_an_earlier_version_left_it(stop_at_once(image_file, make_host(), out, "plain"))
    service = Service(make_host, lambda: out, runs_at=lambda: tmp_path / "runs")
    assert [run.name for run in service.runs()] == ["hidden", "plain"]
    for name in ("hidden", "plain"):
        job = service.resume(name)
        ended(service, job)
        assert job.state == "completed", job.error
    assert {pair.name for pair in service.pairs()} == {"hidden", "plain"}
