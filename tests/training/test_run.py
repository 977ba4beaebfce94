"""A run from image to files, on the host of docs/extending.md."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import unziplora
from tests.training.runs import RUN, SETTINGS, begin, hashes
from unziplora.errors import InvalidInput, TrainingFailed
from unziplora.training.events import (
    Finished,
    LorasSaved,
    Message,
    Previewed,
    Started,
    StateSaved,
    StepDone,
)
from unziplora.training.run_folder import RunFolder


def weights(host: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in host.unet.parameters()]


def test_a_run_says_what_it_does_and_leaves_two_files(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    events = list(begin(image_file, host, tmp_path))

    assert isinstance(events[0], Started)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].time_left == 0
    assert isinstance(events[-2], LorasSaved)
    assert isinstance(events[-1], Finished)
    assert events[-1].outcome == "completed"
    written = {path.name for path in tmp_path.iterdir()} - {"image.png"}
    assert written == {
        ".unziplora",
        *(f"pair_{b}.{e}" for b in ("content", "style") for e in ("safetensors", "json")),
    }
    inside = {path.name for path in (tmp_path / RUN).iterdir()}
    assert inside == {"settings.json", "image.png", "progress.csv", "run.lock"}
    with open(tmp_path / RUN / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[2]["loss"]) == steps[2].loss


def test_the_leak_that_is_trained_against_is_noted_and_read_back_after_a_resume(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, make_host(), tmp_path, leak_penalty=1.0, leak_every=2, method="m1")
    for event in run:
        if isinstance(event, StepDone) and event.step == 3:
            run.send("stop")
    rest = [
        e for e in unziplora.resume(tmp_path / RUN, host=make_host()) if isinstance(e, StepDone)
    ]
    assert [event.leak is not None for event in rest] == [True, False, True]  # steps 4 to 6
    rows = RunFolder(tmp_path / RUN).read_progress()
    assert [row["step"] for row in rows if "leak" in row] == [2, 4, 6]
    assert [rows[3]["leak"], rows[5]["leak"]] == [rest[0].leak, rest[2].leak]
    assert all(row["seconds"] >= 0 for row in rows)


def test_the_model_is_as_it_was_after_every_outcome(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    for outcome in ("completed", "stopped", "failed", "abandoned"):
        host = make_host()
        host.unet.conv_in.weight.requires_grad_(False)
        before = weights(host)
        flags = [parameter.requires_grad for parameter in host.unet.parameters()]
        run = begin(image_file, host, tmp_path, name=outcome)
        if outcome == "stopped":
            run.send("stop")
        events = iter(run)
        for event in events:
            if outcome == "failed" and isinstance(event, StepDone):
                host.denoise = None
                break
            if outcome == "abandoned":
                events.close()  # type: ignore[attr-defined]
                break
        if outcome == "failed":
            with pytest.raises(TypeError):
                list(events)
        assert all(torch.equal(*pair) for pair in zip(before, weights(host), strict=True))
        assert flags == [parameter.requires_grad for parameter in host.unet.parameters()]
        assert not any("forward" in module.__dict__ for module in host.unet.modules())


def test_a_progress_file_that_cannot_be_written_does_not_end_the_run(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    events = []
    for event in begin(image_file, host, tmp_path):
        if isinstance(event, Started):
            (tmp_path / RUN / "progress.csv").mkdir()  # appending to it raises OSError
            (tmp_path / RUN / "log.txt").mkdir()
        events.append(event)
    assert isinstance(events[-1], Finished)
    assert len(hashes(tmp_path)) == 2


def test_a_file_where_the_runs_folder_should_go_is_refused(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    (tmp_path / ".unziplora").write_text("mine")
    with pytest.raises(InvalidInput, match="is a file, where the run's folder should be"):
        begin(image_file, host, tmp_path)


def test_save_now_and_snapshots_have_names_of_their_own(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, host, tmp_path, snapshot_every=4)
    saved = []
    for event in run:
        if isinstance(event, StepDone) and event.step == 2:
            run.send("save now")
        saved += [event] if isinstance(event, (LorasSaved, StateSaved)) else []
    assert [event.step for event in saved] == [1, 2, 2, 4, 6]
    names = {path.name for path in (tmp_path / RUN / "snapshots").glob("*.safetensors")}
    assert names == {f"pair-00000{s}_{b}.safetensors" for s in (2, 4) for b in ("content", "style")}


@pytest.mark.slow
def test_previews_show_base_content_style_and_both(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    events = list(begin(image_file, host, tmp_path, preview_every=3, preview_steps=2))
    previews = [event for event in events if isinstance(event, Previewed)]
    assert [event.step for event in previews] == [3, 6]
    for event in previews:
        assert list(event.images) == ["base", "content", "style", "both"]
        assert all(path.exists() for path in event.images.values())


def test_a_sampler_that_the_host_lacks_is_named_and_the_run_goes_on(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    events = list(begin(image_file, host, tmp_path, preview_every=6, preview_sampler="Heun"))
    messages = [event.text for event in events if isinstance(event, Message)]
    assert any("one sampler" in text for text in messages)
    assert isinstance(events[-1], Finished)


@pytest.mark.slow
def test_previews_change_no_tensor_and_a_failed_one_ends_no_run(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(image_file, make_host(), tmp_path, name="whole"))
    list(begin(image_file, make_host(), tmp_path, name="shown", preview_every=1, preview_steps=1))
    host = make_host()
    host.preview = None
    events = list(begin(image_file, host, tmp_path, name="broken", preview_every=1))
    messages = [event.text for event in events if isinstance(event, Message)]
    assert any("preview failed" in text for text in messages)
    assert hashes(tmp_path, "shown") == hashes(tmp_path, "broken") == hashes(tmp_path, "whole")


@pytest.mark.slow
def test_nothing_is_overwritten_unless_requested(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(image_file, make_host(), tmp_path))
    earlier = hashes(tmp_path)
    with pytest.raises(InvalidInput, match="overwrite it"):
        begin(image_file, make_host(), tmp_path)
    run = unziplora.train(
        image_file,
        subject="cat",
        style="ink",
        host=make_host(),
        settings={**SETTINGS, "seed": 5},
        out=tmp_path,
        overwrite=True,
    )
    list(run)
    assert hashes(tmp_path) != earlier


def test_two_runs_of_one_name_do_not_meet(make_host: Any, image_file: Path, tmp_path: Path) -> None:
    first = begin(image_file, make_host(), tmp_path)
    second = begin(image_file, make_host(), tmp_path)
    events = iter(first)
    next(events)
    with pytest.raises(InvalidInput, match="already running"):
        list(second)
    list(events)
    assert len(hashes(tmp_path)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 500}, "above the size of the layer"),
        ({"name": "../up"}, "name"),
        ({"name": "..."}, "dots"),
        ({"blocks": {"content": ["output_blocks.9.1"]}}, "does not have"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    host: Any, image_file: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        list(begin(image_file, host, tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()
    assert not any("forward" in module.__dict__ for module in host.unet.modules())


def test_a_learning_rate_that_makes_the_loss_nan_ends_with_a_sentence_and_no_files(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailed, match="Start again with a learning rate below"):
        list(begin(image_file, host, tmp_path, lr=1e6, steps=20))
    assert not list(tmp_path.glob("*.safetensors"))
    assert "TrainingFailed" in (tmp_path / RUN / "log.txt").read_text()


def test_a_save_that_fails_does_not_end_the_run(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unziplora.training import run_folder as state

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write_tensors", full)
    events = list(begin(image_file, host, tmp_path, save_minutes=1e-9))
    assert isinstance(events[-1], Finished)
    assert events[-1].outcome == "completed"
    assert any(isinstance(event, Message) and "disk" in event.text for event in events)


def test_the_run_folder_holds_no_path_of_the_user(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(image_file, host, tmp_path))
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != image_file:
            assert str(tmp_path).encode() not in path.read_bytes(), path
