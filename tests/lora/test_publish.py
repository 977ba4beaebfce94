"""The folder for a hub: whole, with metadata that Hugging Face's own library reads."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.conftest import python_blocks
from tests.lora.test_write import HEADER, SHAPES, some_layers
from unziplora import python_api as api
from unziplora.errors import InvalidInput, WriteError
from unziplora.lora.publish import publish, zip_of
from unziplora.lora.write import save_lora


@pytest.fixture
def files(host: Any, image_file: Path, tmp_path: Path) -> dict[str, Path]:
    run = api.train(
        image_file, subject="tree", style="flat | drawing", host=host, out=tmp_path,
        settings={"name": "tree", "steps": 2, "rank": 2},
    )  # fmt: skip
    for _ in run:
        pass
    return {role: tmp_path / f"tree_{role}.safetensors" for role in ("content", "style")}


def code_of(folder: Path) -> str:
    (code,) = python_blocks(folder / "README.md")
    return code


def test_the_card_is_read_by_the_hubs_own_library(
    files: dict[str, Path], image_file: Path, tmp_path: Path
) -> None:
    images = dict.fromkeys(("content", "style", "both"), image_file)
    folder = publish(tmp_path / "tree", files, images, title="A tree: flat", licence="cc-by-4.0")
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["base_model"].startswith("stabilityai/")
    assert data["base_model_relation"] == "adapter"
    assert data["instance_prompt"] == "sks tree"
    assert "lora" in data["tags"]
    assert [(one["output"]["url"], one["text"]) for one in data["widget"]] == [
        ("images/content.png", "a sks tree"),
        ("images/style.png", "an image in flat | drawing style"),
        ("images/both.png", "a sks tree in flat | drawing style"),
    ]
    assert card.text.lstrip().startswith("# A tree: flat")
    assert "a sks tree <lora:tree_content:1>\n" in card.text
    assert "<lora:tree_content:1> <lora:tree_style:1>\n" in card.text
    for path in files.values():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    civitai = (folder / "civitai.txt").read_text()
    for said in ("Trigger words: sks tree", "Base model: SDXL 1.0", "CC BY 4.0"):
        assert said in civitai


def test_the_diffusers_code_runs_as_it_stands(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pipeline that notes what is asked of it, in place of gigabytes from the internet."""
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Pipeline:
        @classmethod
        def from_pretrained(cls, *args: Any, **options: Any) -> Pipeline:
            asked.append(("from_pretrained", args, options))
            return cls()

        def __getattr__(self, name: str) -> Any:
            def note(*args: Any, **options: Any) -> Any:
                asked.append((name, args, options))
                return self

            return note

        def __call__(self, prompt: str) -> Any:
            asked.append(("draw", (prompt,), {}))
            return SimpleNamespace(images=[self])

    folder = publish(tmp_path / "tree", files, {})
    monkeypatch.chdir(folder)
    monkeypatch.setattr("diffusers.StableDiffusionXLPipeline", Pipeline, raising=False)
    exec(code_of(folder), {})
    loads = [(args[0], options) for name, args, options in asked if name == "load_lora_weights"]
    for (where, options), role in zip(loads, ("content", "style"), strict=True):
        assert (Path(where) / options["weight_name"]).is_file()
        assert options["adapter_name"] == role
    assert ("draw", ("a sks tree in flat | drawing style",), {}) in asked


@pytest.mark.parametrize(
    ("family", "base", "civitai"),
    [("Pony", "pony", "Pony"), ("Illustrious", "Illustrious", "Illustrious"),
     ("NoobAI", "noobai", "NoobAI")],
)  # fmt: skip
def test_the_familys_own_base_model_is_named(
    family: str, base: str, civitai: str, tmp_path: Path
) -> None:
    files = {}
    for role in ("content", "style"):
        header = replace(HEADER, role=role, name=f"x_{role}", family=family)  # type: ignore[arg-type]
        files[role] = tmp_path / f"x_{role}.safetensors"
        save_lora(files[role], some_layers(), header.metadata(), shapes=SHAPES)
    folder = publish(tmp_path / "x", files, {})
    assert base in ModelCard.load(folder / "README.md").data.to_dict()["base_model"]
    assert f"Base model: {civitai}\n" in (folder / "civitai.txt").read_text()
    assert f'from_single_file("{HEADER.model_name}"' in code_of(folder)


def test_the_zip_has_the_whole_folder(
    files: dict[str, Path], image_file: Path, tmp_path: Path
) -> None:
    folder = publish(tmp_path / "tree", files, {"both": image_file})
    with zipfile.ZipFile(zip_of(folder)) as archive:
        assert archive.testzip() is None
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    there = {p.relative_to(tmp_path).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert packed == there


def test_an_archive_of_the_users_own_is_not_replaced(
    files: dict[str, Path], tmp_path: Path
) -> None:
    zip_of(tmp_path / "tree").write_bytes(b"my own")
    with pytest.raises(InvalidInput, match=r"tree.zip exists already. Move that file away"):
        publish(tmp_path / "tree", files, {})
    assert zip_of(tmp_path / "tree").read_bytes() == b"my own"
    assert not (tmp_path / "tree").exists()


def test_a_licence_that_is_unknown_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="openrail"):
        publish(tmp_path / "tree", files, {}, licence="mine")
    assert not (tmp_path / "tree").exists()


def test_a_disk_that_refuses_leaves_nothing_behind(
    files: dict[str, Path], image_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shared"
    target.mkdir()
    with pytest.raises(WriteError, match="tree could not be published"):
        publish(target / "tree", files, {"both": tmp_path / "gone.png"})
    assert list(target.iterdir()) == []


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
