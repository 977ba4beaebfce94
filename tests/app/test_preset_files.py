"""The user's presets are files: saved, found again, replaced, deleted; names stay names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unziplora.app.preset_files import PresetFiles
from unziplora.errors import InvalidInput, NotFound, WriteError


@pytest.fixture
def presets(tmp_path: Path) -> PresetFiles:
    return PresetFiles(lambda: tmp_path)


def test_a_preset_is_found_again_and_replaced_by_one_of_its_name(
    presets: PresetFiles, tmp_path: Path
) -> None:
    assert presets.names() == []
    presets.write("Posters", {"steps": "400", "token": "søm"})
    presets.write("ink", {"rank": "8"})
    assert PresetFiles(lambda: tmp_path).names() == ["ink", "Posters"]
    assert presets.read("Posters") == {"steps": "400", "token": "søm"}
    presets.write("Posters", {"steps": "500"})
    assert presets.read(" Posters ") == {"steps": "500"}


def test_presets_lie_beside_the_runs(presets: PresetFiles, tmp_path: Path) -> None:
    presets.write("mine", {"steps": "4"})
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.relative_to(tmp_path).parts[0] == ".unziplora"


def test_presets_that_lay_in_the_output_folder_are_read_where_runs_lie_elsewhere_now(
    presets: PresetFiles, tmp_path: Path
) -> None:
    presets.write("old", {"steps": "4"})
    now = PresetFiles(lambda: tmp_path, lambda: tmp_path / "elsewhere")
    now.write("new", {"steps": "5"})
    assert now.names() == ["new", "old"]
    assert now.read("old") == {"steps": "4"}
    now.write("old", {"steps": "6"})
    assert now.read("old") == {"steps": "6"}
    assert (tmp_path / "elsewhere" / ".presets" / "new.json").is_file()
    now.delete("old")  # which is in both places
    assert now.names() == ["new"]


def test_a_deleted_preset_is_gone(presets: PresetFiles) -> None:
    presets.write("mine", {"steps": "4"})
    presets.delete("mine")
    assert presets.names() == []
    for gone in (presets.read, presets.delete):
        with pytest.raises(InvalidInput, match="no preset named mine"):
            gone("mine")


@pytest.mark.parametrize("text", ["no json", "[1]", "[" * 100_000, '"text"', "x" * 200_000])
def test_a_damaged_preset_is_named(presets: PresetFiles, tmp_path: Path, text: str) -> None:
    presets.write("mine", {"steps": "4"})
    (file,) = tmp_path.rglob("mine.json")
    file.write_text(text)
    with pytest.raises(InvalidInput, match="mine is damaged"):
        presets.read("mine")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("linked", [".unziplora", ".unziplora/.presets"])
def test_a_linked_folder_is_neither_written_nor_deleted_in(
    presets: PresetFiles, tmp_path: Path, linked: str
) -> None:
    documents = tmp_path / "documents"
    taxes = documents / (".presets" if linked == ".unziplora" else ".") / "taxes.json"
    taxes.parent.mkdir(parents=True)
    taxes.write_text("{}")
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(documents)
    with pytest.raises(NotFound):
        presets.delete("taxes")
    with pytest.raises(WriteError, match="is a link"):
        presets.write("taxes", {"steps": "4"})
    assert [path.read_text() for path in documents.rglob("*.json")] == ["{}"]


def test_only_texts_are_read(presets: PresetFiles, tmp_path: Path) -> None:
    presets.write("mine", {"steps": "4"})
    (file,) = tmp_path.rglob("mine.json")
    file.write_text('{"steps": 4, "rank": "8", "lr": {"path": "/etc/passwd"}}')
    assert presets.read("mine") == {"rank": "8"}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".hidden", "a:b"])
def test_a_name_that_is_no_name_is_refused(presets: PresetFiles, name: str) -> None:
    with pytest.raises(InvalidInput):
        presets.write(name, {})
    with pytest.raises(InvalidInput):
        presets.read(name)
    with pytest.raises(InvalidInput):
        presets.delete(name)
