"""Signals that end a process: the state is saved first, and the exit code names the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import unziplora
from tests.samples import LONG
from unziplora import mini
from unziplora.cli.drive import drive
from unziplora.training.events import Drawing, StepDone
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder

RUN = Path(".unziplora") / "pair"
SETTINGS = {"steps": 40, "name": "pair", "rank": 2, "lr": 1e-3, "resolution": 64}
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
CODES += [(signal.SIGHUP, 129)] if hasattr(signal, "SIGHUP") else []


@contextmanager
def training(out: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`unziplora train` on the miniature, from its first row of progress on."""
    image = str(mini.IMAGE)
    words = ["--subject", mini.SUBJECT, "--style", mini.STYLE, "--steps", "5000", "--name", "pair"]
    command = [sys.executable, "-m", "unziplora", "train", image, *words, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            while not (out / RUN / "progress.csv").exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), CODES if LONG else [(signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_then_ends_the_process(
    tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out"
    with training(out) as process:
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == code
    step = RunFolder(out / RUN).saved_step()
    assert step
    assert f"The state of step {step} is saved".encode() in said
    assert not list(out.glob("pair_*"))


def begin(host: Any, image: Path, out: Path, **settings: Any) -> Run:
    words = {"subject": "cat", "style": "ink"}
    return unziplora.train(image, **words, host=host, settings={**SETTINGS, **settings}, out=out)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_while_the_image_is_encoded_ends_cleanly_with_nothing_to_save(
    host: Any,
    image_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    encode = host.encode_image

    def interrupted(*inputs: Any) -> Any:
        signal.raise_signal(number)
        return encode(*inputs)

    host.encode_image = interrupted
    before = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}
    assert drive(begin(host, image_file, tmp_path / "out"), "mini") == code
    assert "No state of this run is saved" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert all(tensor.equal(before[name]) for name, tensor in host.unet.state_dict().items())
    assert not any("forward" in module.__dict__ for module in host.unet.modules())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_step_loses_no_whole_step(
    host: Any, image_file: Path, tmp_path: Path, number: int
) -> None:
    denoise, calls = host.denoise, []

    def interrupted(*inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(number)
        return denoise(*inputs)

    host.denoise = interrupted
    run = begin(host, image_file, tmp_path)
    assert drive(run, "mini") == 128 + number
    whole = 3 if number == signal.SIGTERM else 4  # Ctrl-C waits for the step
    assert run.folder.saved_step(run.info.pair) == whole


def test_a_signal_while_previews_are_drawn_does_not_wait_for_them(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    drawn = []

    def interrupted(*_: Any, **__: Any) -> Any:
        drawn.append(1)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    host.preview = interrupted
    run = begin(host, image_file, tmp_path, preview_every=3)
    assert drive(run, "mini") == 143
    assert len(drawn) == 1
    assert run.folder.saved_step() == 3


def test_a_signal_while_the_pair_is_written_waits_until_it_is_whole(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unziplora.training import run_writer

    write = run_writer.write_pair

    def interrupted(*inputs: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return write(*inputs)

    monkeypatch.setattr(run_writer, "write_pair", interrupted)
    assert drive(begin(host, image_file, tmp_path, steps=3), "mini") == 0
    assert (tmp_path / "pair_style.safetensors").is_file()


def test_a_second_signal_does_not_disturb_the_saving(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = RunFolder.save_state

    def interrupted(folder: RunFolder, *inputs: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        save(folder, *inputs)

    monkeypatch.setattr(RunFolder, "save_state", interrupted)
    run = begin(host, image_file, tmp_path, steps=40)
    assert drive(run, "mini") == 143
    assert run.folder.saved_step() == 2


def test_the_second_ctrl_c_ends_a_step_at_once(host: Any, image_file: Path, tmp_path: Path) -> None:
    denoise, calls = host.denoise, []

    def interrupted(*inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return denoise(*inputs)

    host.denoise = interrupted
    run = begin(host, image_file, tmp_path)
    assert drive(run, "mini") == 130
    assert run.folder.saved_step(run.info.pair) == 2


def test_an_interrupted_preview_is_no_failure(host: Any, image_file: Path, tmp_path: Path) -> None:
    from unziplora.errors import Interrupted
    from unziplora.training.events import Message

    def interrupted(*_: Any, **__: Any) -> Any:
        run.send("stop and save")
        raise Interrupted("The WebUI was interrupted.")

    host.preview = interrupted
    run = begin(host, image_file, tmp_path, preview_every=2)
    events = list(run)
    texts = [event.text for event in events if isinstance(event, Message)]
    assert texts == ["Stopped: both LoRAs saved at step 2."]
    assert (tmp_path / "pair_content.safetensors").is_file()


def test_previews_say_which_of_them_is_drawn(host: Any, image_file: Path, tmp_path: Path) -> None:
    events = list(begin(host, image_file, tmp_path, steps=2, preview_every=2, preview_steps=1))
    drawing = [event for event in events if isinstance(event, Drawing)]
    assert [(event.number, event.count) for event in drawing] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_resumed_run_has_a_state_already_and_saves_by_minutes(
    make_host: Callable[[], Any], image_file: Path, tmp_path: Path
) -> None:
    run = begin(make_host(), image_file, tmp_path)
    run.send("stop")
    list(run)
    rest = unziplora.resume(tmp_path / "pair", host=make_host())
    assert {rest.folder.saved_step() for event in rest if isinstance(event, StepDone)} == {1}


def test_the_first_state_is_saved_after_a_twentieth_of_the_run(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    run = begin(host, image_file, tmp_path, steps=60)
    saved = {}
    for event in run:
        if isinstance(event, StepDone):
            saved[event.step] = run.folder.saved_step()
        if len(saved) == 6:
            run.send("stop")
    assert saved == {1: None, 2: None, 3: None, 4: 3, 5: 3, 6: 3}
