"""The folder for a hub: whole, with metadata that Hugging Face's own library reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from unziplora import python_api as api
from unziplora.errors import InvalidInput
from unziplora.lora.publish import publish


@pytest.fixture
def files(host: Any, image_file: Path, tmp_path: Path) -> dict[str, Path]:
    run = api.train(
        image_file, subject="tree", style="flat | drawing", host=host, out=tmp_path,
        settings={"name": "tree", "steps": 2, "rank": 2},
    )  # fmt: skip
    for _ in run:
        pass
    return {role: tmp_path / f"tree_{role}.safetensors" for role in ("content", "style")}


def test_the_card_is_read_by_the_hubs_own_library(
    files: dict[str, Path], image_file: Path, tmp_path: Path
) -> None:
    folder = publish(tmp_path / "to-share", files, {"both": image_file})
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["base_model"].startswith("stabilityai/")
    assert data["instance_prompt"] == "sks tree"
    assert "lora" in data["tags"]
    assert data["widget"][0]["output"]["url"] == "images/both.png"
    assert "tree_style.safetensors" in card.text
    for path in files.values():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert "Trigger words: sks tree" in (folder / "civitai.txt").read_text()


def test_words_cannot_break_the_cards_table(files: dict[str, Path], tmp_path: Path) -> None:
    text = (publish(tmp_path / "to-share", files, {}) / "README.md").read_text()
    (row,) = [line for line in text.splitlines() if "_style.safetensors` |" in line]
    assert row.count("|") == 4


def test_nothing_of_the_machine_is_in_it(files: dict[str, Path], tmp_path: Path) -> None:
    folder = publish(tmp_path / "to-share", files, {})
    for name in ("README.md", "civitai.txt"):
        assert str(tmp_path) not in (folder / name).read_text()


def test_an_existing_folder_is_left_alone(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InvalidInput, match="exists"):
        publish(tmp_path / "taken", files, {})
