"""Output that cannot be written: a closed pipe, a full disk under the log, a narrow code page."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import unziplora
from unziplora import mini
from unziplora.cli.commands import main
from unziplora.cli.drive import drive
from unziplora.cli.output import lasting_output, write_any_character
from unziplora.errors import WriteError
from unziplora.training.events import Message
from unziplora.training.run_folder import RunFolder

SETTINGS = {"steps": 3, "rank": 2, "lr": 1e-3, "resolution": 64}


def command(out: Path, *more: str) -> Sequence[str]:
    words = ["--subject", mini.SUBJECT, "--style", mini.STYLE, "--steps", "2", "--out", str(out)]
    return ["train", str(mini.IMAGE), *words, *more]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reading, writing = os.pipe()
    os.close(reading)  # as after `| head -1`
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "unziplora", *command(out, "--name", "pair")],
            stdout=closed,
            stderr=closed,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0
    assert {p.name for p in out.glob("pair_*.safetensors")} == {
        "pair_content.safetensors",
        "pair_style.safetensors",
    }


def test_a_code_page_without_the_names_letters_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shown = tmp_path / "out", io.BytesIO()
    console = io.TextIOWrapper(shown, encoding="cp1252")  # as Python makes it of such a console
    monkeypatch.setattr(sys, "stdout", console)
    assert main(command(out, "--name", "лиса")) == 0
    console.flush()
    assert (out / "лиса_content.safetensors").is_file()
    assert rb"\u043b\u0438\u0441\u0430" in shown.getvalue()


class _FullDisk(io.TextIOBase):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write("")


def test_a_full_disk_under_the_output_does_not_end_the_run(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", _FullDisk())
    monkeypatch.setattr(sys, "stderr", _FullDisk())
    run = unziplora.train(
        image_file, subject="cat", style="ink", host=host, settings=SETTINGS, out=tmp_path / "out"
    )
    with lasting_output():
        assert drive(run, "mini") == 0
    assert (tmp_path / "out" / "cat-ink_style.safetensors").is_file()


def test_a_message_claims_no_state_that_is_not_on_the_disk(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = RunFolder.save_state, []

    def sometimes(folder: RunFolder, *inputs: Any) -> None:
        calls.append(1)
        if len(calls) in (1, 3):
            raise WriteError("The disk of 'state.safetensors' is full. Make room on it.")
        save(folder, *inputs)

    monkeypatch.setattr(RunFolder, "save_state", sometimes)
    settings = {**SETTINGS, "save_minutes": 1e-9}
    run = unziplora.train(
        image_file, subject="cat", style="ink", host=host, settings=settings, out=tmp_path / "out"
    )
    claims = [event.text for event in run if isinstance(event, Message)]
    assert len(claims) == 2
    assert claims[0].endswith("No state is saved yet.")
    assert claims[1].endswith("The state of step 2 is kept.")


def test_what_can_be_written_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    write_any_character()
    with lasting_output():
        print("to stdout")
        print("to stderr", file=sys.stderr)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("to stdout\n", "to stderr\n")
