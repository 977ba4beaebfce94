"""A run that ended early, resumed: the same files as one that never stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import unziplora
from tests.conftest import ROOT, draw_image, python_blocks
from tests.training.runs import ONE_THREAD, RUN, SETTINGS, begin, hashes
from unziplora.errors import InvalidInput
from unziplora.training.events import Finished, Started, StepDone


@pytest.fixture(scope="module")
def whole(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The hashes of a run that never stopped."""
    out = tmp_path_factory.mktemp("whole")
    list(begin(draw_image(out / "image.png"), make_host(), out))
    return hashes(out)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_stopped_and_resumed_it_ends_with_the_same_files(
    make_host: Any, whole: tuple[str, str], image_file: Path, tmp_path: Path, stop_at: int
) -> None:

    run = begin(image_file, make_host(), tmp_path)
    for event in run:
        if isinstance(event, StepDone) and event.step == stop_at:
            run.send("stop")
    assert isinstance(event, Finished)
    assert (event.outcome, event.step) == ("stopped", stop_at)
    assert not list(tmp_path.glob("pair_*"))

    events = list(unziplora.resume(tmp_path / RUN, host=make_host()))
    assert isinstance(events[0], Started)
    assert events[0].step == stop_at
    assert hashes(tmp_path) == whole
    with open(tmp_path / RUN / "progress.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("123456")


def test_a_resumed_run_replaces_its_own_files_only(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, make_host(), tmp_path)
    run.send("stop")
    list(run)
    stranger = tmp_path / "pair_style.safetensors"
    stranger.write_bytes(b"mine")
    with pytest.raises(InvalidInput, match="not this run's"):
        unziplora.resume(tmp_path / RUN, host=make_host())
    assert stranger.read_bytes() == b"mine"
    stranger.unlink()
    assert isinstance(list(unziplora.resume(tmp_path / RUN, host=make_host()))[-1], Finished)


@pytest.mark.parametrize("change", [{"name": "../../up"}, {"rank": None}])
def test_hand_edited_settings_are_refused_on_resume(
    make_host: Any, image_file: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    run = begin(image_file, make_host(), tmp_path)
    run.send("stop")
    list(run)
    file = tmp_path / RUN / "settings.json"
    data = json.loads(file.read_text())
    data["settings"] |= change
    file.write_text(json.dumps(data))
    with pytest.raises(InvalidInput):
        unziplora.resume(tmp_path / RUN, host=make_host())


def test_a_run_whose_folder_was_renamed_goes_on_there(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, make_host(), tmp_path)
    run.send("stop")
    list(run)
    (tmp_path / RUN).rename(tmp_path / "moved")
    list(unziplora.resume(tmp_path / "moved", host=make_host()))
    assert len(hashes(tmp_path)) == 2
    assert not (tmp_path / RUN).exists()


def test_an_exception_keeps_the_state_of_the_last_whole_step(
    make_host: Any, whole: tuple[str, str], image_file: Path, tmp_path: Path
) -> None:
    host = make_host()
    denoise = host.denoise
    calls = []

    def failing(*inputs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return denoise(*inputs)

    host.denoise = failing
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(begin(image_file, host, tmp_path, memory="full"))
    assert "OutOfMemoryError" in (tmp_path / RUN / "log.txt").read_text()

    events = list(unziplora.resume(tmp_path / RUN, host=make_host()))
    assert isinstance(events[0], Started)
    assert events[0].step == 3
    assert hashes(tmp_path) == whole


def test_stop_and_save_writes_files_and_can_go_on(
    make_host: Any, whole: tuple[str, str], image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, make_host(), tmp_path)
    for event in run:
        if isinstance(event, StepDone) and event.step == 4:
            run.send("stop and save")
    early = hashes(tmp_path)
    list(unziplora.resume(tmp_path / RUN, host=make_host()))
    assert early != hashes(tmp_path) == whole


def test_a_resume_needs_a_whole_state_of_the_same_model(
    make_host: Any, documented: dict[str, Any], image_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="There is no run"):
        unziplora.resume(tmp_path / "nothing", host=make_host())
    run = begin(image_file, make_host(), tmp_path)
    run.send("stop")
    list(run)
    other = make_host()
    other.model = type(other.model)("another-model")
    with pytest.raises(InvalidInput, match="another model"):
        unziplora.resume(tmp_path / RUN, host=other)
    state = tmp_path / RUN / "state.safetensors"
    whole = state.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x80\x04pickle", b"\xff" * 64):
        state.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"state\.safetensors is damaged"):
            list(unziplora.resume(tmp_path / RUN, host=make_host()))
    state.unlink()
    with pytest.raises(InvalidInput, match="no saved state"):
        list(unziplora.resume(tmp_path / RUN, host=make_host()))


def test_a_killed_run_resumes_from_its_last_save(
    make_host: Any, whole: tuple[str, str], image_file: Path, tmp_path: Path
) -> None:
    code = python_blocks(ROOT / "docs" / "extending.md")[0] + (
        "\nimport os, signal, unziplora\n"
        f"torch.set_num_threads(1)\n"
        f"settings = {{**{SETTINGS!r}, 'save_minutes': 1e-9}}\n"
        "run = unziplora.train('image.png', subject='cat', style='ink',\n"
        "    host=MyHost(small_unet()), settings=settings, out='.')\n"
        "for event in run:\n"
        "    if type(event).__name__ == 'StateSaved' and event.step == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ONE_THREAD, check=False)
    assert done.returncode == -signal.SIGKILL
    events = list(unziplora.resume(tmp_path / RUN, host=make_host()))
    assert isinstance(events[0], Started)
    assert events[0].step == 3
    assert hashes(tmp_path) == whole
