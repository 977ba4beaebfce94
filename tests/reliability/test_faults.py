"""Disks that fill up, folders that vanish: some writes here; every write in
`python -m benchmarks.reliability`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unziplora
from benchmarks.reliability.faults import KINDS, Fault, happening, run
from benchmarks.reliability.small import begin
from unziplora import files as atomic
from unziplora.errors import InvalidInput, WriteError
from unziplora.training.events import Finished, Message, StepDone
from unziplora.training.run_folder import RunFolder


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
def test_a_run_goes_on_or_keeps_what_it_has_learned(
    make_host: Callable[[], Any], tmp_path: Path, number: int, kind: str
) -> None:
    # from the third write on: at the first two there is nothing to lose yet, and it is refused
    result = run(make_host, tmp_path, kind, every=23, first=3 + 3 * number)
    assert not result.findings, "\n".join(result.findings)
    assert result.completed >= 1


def test_a_stopped_runs_state_is_saved_elsewhere_and_goes_on_there(
    make_host: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    list(begin(make_host(), tmp_path / "whole"))
    made = begin(make_host(), tmp_path / "out")
    with happening(Fault("disk full", 3, "from then on", tmp_path / "out")):
        events = []
        for event in made:
            events.append(event)
            if isinstance(event, StepDone) and event.step == 2:
                made.send("stop")
    said = [event.text for event in events if isinstance(event, Message)]
    assert made.kept_in != made.folder.path
    assert any(str(made.kept_in) in text for text in said)
    list(unziplora.resume(made.kept_in, host=make_host()))
    for role in ("content", "style"):
        one, other = (folder / f"pair_{role}.safetensors"
                      for folder in (tmp_path / "whole", made.kept_in.parent))  # fmt: skip
        assert tensors(one) == tensors(other)


def tensors(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_a_new_run_that_cannot_begin_leaves_the_earlier_one_as_it_was(
    make_host: Callable[[], Any], tmp_path: Path
) -> None:
    made = begin(make_host(), tmp_path / "out")
    made.send("stop")
    list(made)
    folder = RunFolder(tmp_path / "out" / ".unziplora" / "pair")
    state = folder.state.read_bytes()
    for at in (1, 2):
        with (
            happening(Fault("disk full", at, "from then on", tmp_path / "out")),
            pytest.raises(WriteError, match="full"),
        ):
            list(begin(make_host(), tmp_path / "out", overwrite=True, seed=7))
        assert folder.state.read_bytes() == state
    assert isinstance(list(unziplora.resume(folder.path, host=make_host()))[-1], Finished)


def test_the_state_of_an_earlier_run_is_never_taken_for_that_of_its_successor(
    make_host: Callable[[], Any], tmp_path: Path
) -> None:
    made = begin(make_host(), tmp_path / "out")
    made.send("stop")
    list(made)
    settings = (made.folder.path / "settings.json").read_text()
    other = begin(make_host(), tmp_path / "other", seed=3)
    other.send("stop")
    list(other)
    (other.folder.path / "settings.json").write_text(settings)
    with pytest.raises(InvalidInput, match="belongs to another"):
        list(unziplora.resume(other.folder.path, host=make_host()))


def test_a_run_that_replaces_a_pair_can_be_resumed_beside_it(
    make_host: Callable[[], Any], tmp_path: Path
) -> None:
    list(begin(make_host(), tmp_path / "out"))
    made = begin(make_host(), tmp_path / "out", overwrite=True, seed=3)
    made.send("stop")
    list(made)
    old = tensors(tmp_path / "out" / "pair_style.safetensors")
    list(unziplora.resume(made.folder.path, host=make_host()))
    assert tensors(tmp_path / "out" / "pair_style.safetensors") != old


def test_what_a_killed_write_left_is_cleared_and_what_was_moved_aside_comes_back(
    tmp_path: Path,
) -> None:
    for name in (
        ".a.png.01234567.tmp", ".b.png.01234567.old", ".c.png.01234567.old", "c.png",
        ".a.png.0123456.tmp", "a.png.01234567.tmp", ".hidden",
    ):  # fmt: skip
        (tmp_path / name).write_text(name)
    atomic.clear_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"b.png", "c.png", ".a.png.0123456.tmp", "a.png.01234567.tmp", ".hidden"}
    assert (tmp_path / "b.png").read_text() == ".b.png.01234567.old"


def test_a_progress_file_that_was_cut_off_does_not_keep_a_run_from_going_on(
    make_host: Callable[[], Any], tmp_path: Path
) -> None:
    made = begin(make_host(), tmp_path / "out")
    for event in made:
        if isinstance(event, StepDone) and event.step == 2:
            made.send("stop")
    with open(made.folder.progress, "ab") as file:
        file.write("²,0.1\r\n\xff".encode("latin-1") + b"\x00\n3,0.")
    list(unziplora.resume(made.folder.path, host=make_host()))
    lines = made.folder.progress.read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list("123456")
