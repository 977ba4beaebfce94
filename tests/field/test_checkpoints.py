"""Checkpoints and model folders as people have them: incomplete, linked, cached, edited."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.checkpoints.identify import identify
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost, identity_of
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 2))
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("models")
    for folder in (True, False):
        name = "folder" if folder else "file.safetensors"
        write_random_model(base / name, architecture="koala-700m", widths=TINY, folder=folder)
    return base


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "folder", tmp_path / "my-model")


def only_config(tokenizer: Path) -> None:
    for file in tokenizer.iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 524619\n")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "only a config": only_config,
    "no merges": lambda folder: (folder / "merges.txt").unlink(),
    "merges is a pointer": lambda folder: pointer(folder / "merges.txt"),
    "merges is empty": lambda folder: (folder / "merges.txt").write_text(""),
    "merges is cut off": lambda folder: os.truncate(folder / "merges.txt", 5000),
    "no vocabulary": lambda folder: (folder / "vocab.json").unlink(),
    "vocabulary is a pointer": lambda folder: pointer(folder / "vocab.json"),
    "vocabulary is empty": lambda folder: (folder / "vocab.json").write_text("{}"),
    "empty folder": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("which", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_tokenizer_that_reads_words_otherwise_is_refused(
    folder: Path, which: str, what: str
) -> None:
    DAMAGE[what](folder / which)
    with pytest.raises(InvalidInput, match=rf"{which} of my-model does not read words"):
        open_checkpoint(identify(folder)).tokenizers()


def test_a_whole_tokenizer_is_taken(folder: Path) -> None:
    first, second = open_checkpoint(identify(folder)).tokenizers()
    assert first("a cat").input_ids == second("a cat").input_ids != first("a dog").input_ids


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": {"b": 1}}])
def test_a_header_with_something_else_than_texts_is_read(
    originals: Path, tmp_path: Path, value: Any
) -> None:
    data = (originals / "file.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["training"] = value
    text = json.dumps(header).encode()
    path = tmp_path / "edited.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    unet = open_checkpoint(identify(path)).unet("cpu", torch.float32)
    wanted = open_checkpoint(identify(originals / "file.safetensors")).unet("cpu", torch.float32)
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(unet.state_dict()[name], tensor)


def divided(part: Path, stem: str) -> list[Path]:
    """The part's weights in three files, as large models are saved."""
    (whole,) = part.glob("*.safetensors")
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    files = []
    for i in range(3):
        own = {name: tensors[name] for name in names[i::3]}
        files.append(part / f"{stem}-{i + 1:05}-of-00003.safetensors")
        save_file(own, files[-1])
    return files


@pytest.mark.parametrize("lost", range(3))
@pytest.mark.parametrize("part", ["unet", "text_encoder_2"])
def test_a_missing_shard_is_named(folder: Path, part: str, lost: int) -> None:
    files = divided(folder / part, WEIGHTS if part == "unet" else "model")
    files[lost].unlink()
    with pytest.raises(InvalidInput, match=rf"in 3 files, and {files[lost].name} is not in"):
        open_checkpoint(identify(folder)).text_encoders("cpu", torch.float32)


def test_shards_that_are_all_there_are_read(folder: Path) -> None:
    divided(folder / "unet", WEIGHTS)
    assert open_checkpoint(identify(folder)).unet("cpu", torch.float32) is not None


@pytest.fixture
def cache(folder: Path, tmp_path: Path) -> Path:
    """A folder of Hugging Face's cache with an older snapshot beside the one that main names."""
    cached = tmp_path / "models--someone--small-sdxl"
    snapshots = cached / "snapshots"
    snapshots.mkdir(parents=True)
    folder.rename(snapshots / "abc123")
    (snapshots / "000old").mkdir()
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc123")
    return cached


@pytest.mark.parametrize("below", ["", "snapshots", "snapshots/abc123"])
def test_a_folder_of_hugging_faces_cache_is_followed(cache: Path, below: str) -> None:
    file = identify(cache / below)
    assert file.path == cache / "snapshots" / "abc123"
    assert file.name == "small-sdxl"


def test_without_its_branch_the_newest_snapshot_is_taken(cache: Path) -> None:
    shutil.rmtree(cache / "refs")
    os.utime(cache / "snapshots" / "000old", (0, 0))
    assert identify(cache).path.name == "abc123"


def test_a_cache_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models--someone--nothing" / "snapshots").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="without a downloaded model"):
        identify(tmp_path / "models--someone--nothing")


def test_a_linked_model_keeps_the_name_that_is_seen(originals: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "5f3a9c"
    blob.parent.mkdir()
    shutil.copy(originals / "file.safetensors", blob)
    link = tmp_path / "ponyDiffusionV6XL.safetensors"
    link.symlink_to(blob)
    host = StandaloneHost.open(link, device="cpu")
    assert host.model.name == "ponyDiffusionV6XL.safetensors"
    assert host.model.family == "Pony"
    assert identity_of(link).name == host.model.name  # before it is loaded, too


def test_a_linked_folder_keeps_the_name_that_is_seen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "noobai-xl"
    link.symlink_to(folder)
    assert (identify(link).name, identify(link).family) == ("noobai-xl", "NoobAI")
    monkeypatch.chdir(folder)
    assert identify(".").name == "my-model"


def test_a_model_with_one_block_a_group_is_no_miniature_unless_it_says_so(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.safetensors", architecture="mini", widths=TINY)
    assert identify(path).architecture.name == "mini"
    tensors = load_file(path)
    save_file(tensors, path, {"modelspec.title": "another small one"})
    assert identify(path).architecture.name == "sdxl-like"
    save_file(tensors, path, {"modelspec.title": "UnZipLoRA miniature"})
    assert identify(path).architecture.name == "mini"
