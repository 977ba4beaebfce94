"""Names: invisible characters, compositions, emoji, and files that appear while a run trains."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import unziplora
from unziplora.errors import InvalidInput
from unziplora.files import check_name
from unziplora.lora.merge import merge
from unziplora.lora.pair import pair_files
from unziplora.training.events import Finished, LorasSaved, Message, Started
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder, run_path
from unziplora.training.settings import Settings

SETTINGS = {"steps": 3, "rank": 2, "lr": 1e-3, "resolution": 64}


def begin(host: Any, image: Path, out: Path, name: str = "fox", **options: Any) -> Run:
    settings = {**SETTINGS, "name": name}
    return unziplora.train(
        image, subject="fox", style="ink", host=host, settings=settings, out=out, **options
    )


@pytest.mark.parametrize(
    "character",
    ["\u200b", "\u200d", "\u200e", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u2060", "\u3164"],
    ids=lambda character: f"{ord(character):04X}",
)
def test_an_invisible_character_in_a_name_is_refused_by_its_number(character: str) -> None:
    for name in (f"fox{character}", f"{character}fox", f"f{character}ox"):
        with pytest.raises(InvalidInput, match=f"U\\+{ord(character):04X}"):
            check_name(name)


def test_a_name_is_composed_before_it_becomes_that_of_files(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    decomposed = unicodedata.normalize("NFD", "fête")
    list(begin(host, image_file, tmp_path / "out", decomposed))
    names = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert names == {"fête_content.safetensors", "fête_style.safetensors"}
    assert run_path(tmp_path / "out", "fête").is_dir()


@pytest.mark.parametrize(
    ("subject", "style", "name"),
    [
        ("🦊", "🎨", "fox-face-artist-palette"),
        ("🦊", "ink", "fox-face-ink"),
        ("fox", "watercolor 🎨", "fox-watercolor-artist-palette"),
        ("...", "!!!", "pair"),
        ("кот", "тушь", "кот-тушь"),
    ],
)
def test_words_of_emoji_or_signs_make_a_name_that_can_be_read(
    subject: str, style: str, name: str
) -> None:
    assert Settings(subject, style).file_name == name


def test_long_words_make_a_name_that_files_can_have() -> None:
    for letter in ("x", "ж", "猫", "🦊"):
        name = Settings(50 * letter, 50 * letter).file_name
        assert check_name(f"{name}-123") == f"{name}-123"


def test_the_second_of_two_runs_of_one_name_is_refused_when_it_would_write(
    make_host: Callable[[], Any], image_file: Path, tmp_path: Path
) -> None:
    first, second = (begin(make_host(), image_file, tmp_path) for _ in range(2))
    list(first)
    kept = {path: path.read_bytes() for path in pair_files(tmp_path, "fox").values()}
    with pytest.raises(InvalidInput, match="exists already"):
        list(second)
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_run_that_stopped_is_not_replaced_by_one_that_waited(
    make_host: Callable[[], Any], image_file: Path, tmp_path: Path
) -> None:
    first, second = (begin(make_host(), image_file, tmp_path) for _ in range(2))
    first.send("stop")
    list(first)
    with pytest.raises(InvalidInput, match="There is a run named fox"):
        list(second)
    assert isinstance(list(unziplora.resume(tmp_path / "fox", host=make_host()))[-1], Finished)


@pytest.mark.parametrize("appearing", ["fox_style.safetensors", "fox_content.json"])
def test_a_file_that_appears_while_a_run_trains_is_kept(
    host: Any, image_file: Path, tmp_path: Path, appearing: str
) -> None:
    events = []
    for event in begin(host, image_file, tmp_path):
        events.append(event)
        if isinstance(event, Started):
            (tmp_path / appearing).write_bytes(b"another's")
    assert (tmp_path / appearing).read_bytes() == b"another's"
    saved = next(event for event in events if isinstance(event, LorasSaved))
    assert {path.name for path in saved.files.values()} == {
        "fox-2_content.safetensors",
        "fox-2_style.safetensors",
    }
    assert any("fox-2" in event.text for event in events if isinstance(event, Message))


def test_a_file_that_appears_is_replaced_where_that_was_wanted(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    for event in begin(host, image_file, tmp_path, overwrite=True):
        if isinstance(event, Started):
            (tmp_path / "fox_style.safetensors").write_bytes(b"another's")
    assert (tmp_path / "fox_style.safetensors").read_bytes() != b"another's"
    assert not (tmp_path / "fox-2_style.safetensors").exists()


def lora(path: Path) -> Path:
    key = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn2_to_k"
    shapes = {f"{key}.lora_down.weight": (2, 8), f"{key}.lora_up.weight": (8, 2)}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_while_loras_are_merged_is_kept(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, both = lora(tmp_path / "part.safetensors"), tmp_path / "both.safetensors"

    def another(*_: Any, **__: Any) -> None:
        both.write_bytes(b"another's")

    if not links:

        def refused(*_: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "fsync", another)  # written whole, and not yet under its name
    with pytest.raises(InvalidInput, match=r"both\.safetensors exists already"):
        merge(both, [(part, 1.0), (part, 1.0)])
    assert both.read_bytes() == b"another's"
    assert {path.name for path in tmp_path.iterdir()} == {part.name, both.name}
    monkeypatch.undo()
    both.unlink()
    assert merge(both, [(part, 1.0), (part, 1.0)]).path == both


def test_a_disk_without_locks_is_not_taken_for_a_run_of_the_same_name(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    events = list(begin(host, image_file, tmp_path))
    assert isinstance(events[-1], Finished)
    assert any("no file locks" in event.text for event in events if isinstance(event, Message))


def test_a_lock_that_another_holds_keeps_the_run_out(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    folder = RunFolder(run_path(tmp_path, "fox"))
    folder.make()
    with folder.locked(), pytest.raises(InvalidInput, match="already running"):
        list(begin(host, image_file, tmp_path))
