"""Odd arguments, settings and files on the command line: one sentence each, and no hang."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unziplora
from unziplora import mini
from unziplora.checkpoints.identify import identify
from unziplora.cli.commands import main
from unziplora.errors import InvalidInput
from unziplora.images.load import open_image
from unziplora.lora.read import read_lora
from unziplora.method.columns import ColumnSchedule
from unziplora.scores.report import read_batches
from unziplora.scores.vit_weights import read_state
from unziplora.training.manifest import read_manifest
from unziplora.training.run_folder import RunFolder
from unziplora.training.settings import Settings

DEEP = "[" * 100_000 + "]" * 100_000
TRAIN = ["train", str(mini.IMAGE), "--subject", "fox", "--style", "ink"]
GENERATE = ["generate", "--prompt", "a fox", "--out", "fox.png"]

BAD = [
    ([*GENERATE, "--seed", "12345678901234567890"], "--seed"),
    ([*GENERATE, "--seed", "-1"], "--seed"),
    ([*GENERATE, "--guidance", "nan"], "--guidance"),
    ([*GENERATE, "--guidance", "inf"], "--guidance"),
    ([*GENERATE, "--steps", "0"], "--steps"),
    ([*GENERATE, "--size", "0x512"], "--size"),
    ([*GENERATE, "--size", "99999999x512"], "--size"),
    ([*GENERATE, "--lora", "x.safetensors:nan"], "weight nan of x.safetensors"),
    ([*GENERATE, "--lora", "x.safetensors:inf"], "weight inf of x.safetensors"),
    ([*GENERATE, "--lora", "x.safetensors:1e30"], "weight 1e30 of x.safetensors"),
    (["sheet", "--content", "a", "--style", "b", "--out", "c.png", "--weights", "1,nan"], "nan"),
    (["sheet", "--content", "a", "--style", "b", "--out", "c.png", "--seed", "1" * 20], "--seed"),
    (["app", "--port", "99999"], "--port"),
    (["app", "--port", "-1"], "--port"),
    ([*TRAIN, "--seed", "1" * 30], "seed"),
    ([*TRAIN, "--lr", "nan"], "learning rate cannot be nan"),
    ([*TRAIN, "--name", "fox\u202e"], "invisible character"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda v: str(v)[-40:])
def test_a_bad_argument_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("unziplora: error: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_instead_of_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    name = str(pipe)
    for arguments in (
        ["train", name, "--subject", "fox", "--style", "ink"],
        [*TRAIN, "--settings", name],
        [*TRAIN, "--model", name, "--out", str(tmp_path)],
        [*TRAIN, "--model", "mini", "--vae", name, "--out", str(tmp_path)],
        ["inspect", name],
        ["batch", name, "--model", "mini", "--out", str(tmp_path / "batch")],
    ):
        assert main(arguments) == 2, arguments
        assert "'pipe.png' is a pipe or a device" in capsys.readouterr().err, arguments


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe that nobody writes to: who opens it waits for ever."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def settings_of_a_run(pipe: Path) -> object:
    folder = RunFolder(pipe.parent / "run")
    folder.path.mkdir()
    pipe.rename(folder.path / "settings.json")
    return folder.read_info()


READERS: dict[str, Callable[[Path], object]] = {
    "LoRA": read_lora,
    "checkpoint": identify,
    "image": open_image,
    "manifest": lambda path: read_manifest(path, {}),
    "encoder's weights": read_state,
    "settings of a run": settings_of_a_run,
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_a_pipe_themselves(reader: str, pipe: Path) -> None:
    with pytest.raises(InvalidInput, match="pipe"):
        READERS[reader](pipe)


@pytest.mark.parametrize("what", ["state.safetensors", "progress.csv"])
def test_what_a_run_has_beside_its_settings_may_be_a_pipe(what: str, pipe: Path) -> None:
    folder = RunFolder(pipe.parent)
    pipe.rename(pipe.with_name(what))
    assert folder.saved_step() is None
    assert folder.read_progress() == []
    folder.rewind_progress(1)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_settings_nested_thousands_deep_are_a_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert main([*TRAIN, "--settings", str(file)]) == 2
    assert "not readable as a JSON object" in capsys.readouterr().err
    with pytest.raises(InvalidInput, match="not readable JSON"):
        Settings.from_json(text)
    with pytest.raises(InvalidInput, match=r"settings\.json is damaged"):
        RunFolder(tmp_path).read_info()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_name_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "fox\x1b[31m\u202egnp.png"
    image.write_bytes(b"no image")
    assert main(["train", str(image), "--subject", "fox", "--style", "ink"]) == 2
    error = capsys.readouterr().err
    assert r"fox\x1b[31m\u202egnp.png" in error
    assert error.strip().isprintable()


def test_a_settings_file_may_begin_with_a_byte_order_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"rank": 0}), encoding="utf-8-sig")  # as Notepad saves it
    assert main([*TRAIN, "--settings", str(file)]) == 2
    assert "rank cannot be 0" in capsys.readouterr().err


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(InvalidInput, match="Unknown setting 'stepz'"):
        Settings.from_json('{"subject": "fox", "style": "ink", "stepz": 3}')


@pytest.mark.parametrize("steps", [*range(1, 13), 600])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_columns_are_never_chosen_by_scores_that_are_all_zero(steps: int, window: int) -> None:
    """Where B starts at zero, the first step's importance is zero in every column."""
    settings = Settings("fox", "ink", steps=steps, window=window).resolve()
    schedule = ColumnSchedule(settings.recalibrate_every, settings.window)
    assert not schedule.selects_after(0)
    assert settings.window < settings.recalibrate_every  # some steps train with masks


def test_a_window_of_one_step_is_enough_where_b_starts_at_random() -> None:
    assert Settings("fox", "ink", init="random", window=1).resolve().window == 1


def test_an_interval_without_a_step_under_masks_is_refused() -> None:
    with pytest.raises(InvalidInput, match="leaves no step that trains with masks"):
        Settings("fox", "ink", recalibrate_every=2).resolve()
    assert Settings("fox", "ink", recalibrate_every=2, method="m1").resolve().steps == 600


def test_latents_that_could_not_be_resumed_are_refused_at_the_start(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    encode = host.encode_image
    host.encode_image = lambda *inputs: encode(*inputs).repeat(1, 4, 1, 1)  # of 16 channels
    run = unziplora.train(
        image_file,
        subject="fox",
        style="ink",
        host=host,
        settings={"steps": 2, "rank": 2, "resolution": 64},
        out=tmp_path / "out",
    )
    with pytest.raises(InvalidInput, match="its latents have the shape"):
        list(run)
    assert not (tmp_path / "out").exists()


def test_a_batchs_results_of_too_many_brackets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_text("[" * 200_000 + "\n")
    with pytest.raises(InvalidInput):
        read_batches([tmp_path])
