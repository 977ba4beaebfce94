"""What can be done with a pair: rename it, train it further, take an earlier step of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.waiting import until
from unziplora.app import products
from unziplora.app.own_machine import can_open, is_here, open_folder
from unziplora.app.service import Service
from unziplora.errors import InvalidInput, NotFound, WriteError
from unziplora.images.load import open_image
from unziplora.lora.metadata import read_info
from unziplora.lora.publish import zip_of
from unziplora.lora.rename import copy_renamed
from unziplora.lora.tensor_file import read_metadata

pytestmark = pytest.mark.slow
SETTINGS = {"subject": "tree", "style": "flat drawing", "steps": 3, "rank": 2, "lr": 1e-2,
            "image_on_cards": True}  # fmt: skip


@pytest.fixture
def saved() -> list[dict[str, Path]]:
    return []


@pytest.fixture
def service(host: Any, tmp_path: Path, saved: list[dict[str, Path]]) -> Service:
    out = tmp_path / "loras"
    return Service(lambda: host, lambda: out, lambda files: saved.append(dict(files)))


def trained(service: Service, image: Path, name: str, **more: Any) -> Any:
    return finished(service.start(image, {**SETTINGS, "name": name, **more}))


def finished(job: Any) -> Any:
    until(lambda: job.state not in ("waiting", "running"))
    assert job.state == "completed", job.error
    return job


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def test_a_renamed_pair_has_the_new_name_everywhere_and_the_same_tensors(
    service: Service, image_file: Path, saved: list[dict[str, Path]]
) -> None:
    job = trained(service, image_file, "old")
    before = service.pair("old")
    kept = {role: (tensors(path), read_metadata(path)) for role, path in before.files.items()}
    pair = service.rename("old", " new ")
    assert (pair.name, job.name) == ("new", "new")
    assert set(job.files.values()) == set(pair.files.values()) == set(saved[-1].values())
    assert not [path for path in service.folder().iterdir() if "old" in path.name]
    beside = {path.name for path in pair.all_files()}
    assert beside == {f"new_{r}.{e}" for r in kept for e in ("safetensors", "json", "png")}
    for role, path in pair.files.items():
        old_tensors, header = kept[role]
        assert old_tensors.keys() == tensors(path).keys()
        assert all(torch.equal(old_tensors[key], t) for key, t in tensors(path).items())
        said = read_metadata(path)
        assert said["ss_output_name"] == path.stem
        assert said["modelspec.title"] == f"{path.stem} ({role})"
        changed = {key for key in header if header[key] != said[key]}
        assert changed == {"ss_output_name", "modelspec.title"}
    assert service.run_folder("new").read_info().settings.name == "new"
    assert not service.run_folder("old").exists()


def test_a_pair_is_not_renamed_to_what_is_taken_or_no_name(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "one")
    trained(service, image_file, "two")
    for new, said in (("two", "exists already"), ("../up", "name"), ("", "name")):
        with pytest.raises(InvalidInput, match=said):
            service.rename("one", new)
    with pytest.raises(NotFound):
        service.rename("none", "other")
    assert service.rename("one", "one").name == "one"
    assert {pair.name for pair in service.pairs()} == {"one", "two"}


def test_a_pair_whose_renaming_fails_halfway_is_as_it_was(
    service: Service, image_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(service, image_file, "old")
    before = everything(service)
    whole = products.copy_renamed

    def full_at_the_second(path: Path, target: Path) -> None:
        if "style" in target.name:
            raise WriteError("The disk is full.")
        whole(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(products, "copy_renamed", full_at_the_second)
        with pytest.raises(WriteError, match="full"):
            service.rename("old", "new")
    assert everything(service) == before
    with monkeypatch.context() as patched:  # a side file that cannot be moved, at the end
        patched.setattr(Path, "rename", refusing_images(Path.rename))
        with pytest.raises(WriteError):
            service.rename("old", "new")
    assert everything(service) == before
    assert service.rename("old", "new").name == "new"


def refusing_images(rename: Any) -> Any:
    def refuse(path: Path, target: Any) -> Any:
        if path.name == "old_style.png":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    return refuse


def test_a_pair_whose_run_is_damaged_is_not_renamed_in_part(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "old")
    (service.run_folder("old").path / "settings.json").write_text("{")
    before = everything(service)
    with pytest.raises(InvalidInput, match="damaged"):
        service.rename("old", "new")
    assert everything(service) == before


def test_a_renamed_file_replaces_none_that_came_meanwhile(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    trained(service, image_file, "old")
    taken = tmp_path / "taken.safetensors"
    taken.write_text("of somebody else")
    with pytest.raises(InvalidInput, match="exists already"):
        copy_renamed(service.pair("old").content, taken)
    assert taken.read_text() == "of somebody else"


def everything(service: Service) -> dict[str, bytes]:
    """Files by their place below the output folder, the lock aside."""
    out = service.folder()
    found = (path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def test_a_pair_is_trained_for_more_steps_into_one_of_its_own(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "first", prompt_style="an ink image")
    before = tensors(service.pair("first").style)
    job = finished(service.train_more("first", 5))
    assert (job.name, job.steps) == ("first-more", 5)
    assert all(torch.equal(before[k], t) for k, t in tensors(service.pair("first").style).items())
    more = service.pair("first-more")
    said = json.loads(read_metadata(more.content)["ss_network_args"])
    assert said["started_from"]["name"] == "first"
    assert said["started_from"]["steps"] == 3
    assert read_info(more.style).prompts["style"] == "an ink image"
    assert service.train_more("first", 5).name == "first-more-2"


def test_a_pair_without_its_image_is_not_trained_further(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "first")
    service.delete_run("first")
    with pytest.raises(InvalidInput, match="no copy of its image"):
        service.train_more("first", 5)
    job = service.start(image_file, {**SETTINGS, "name": "again"}, start_from="first")
    finished(job)
    with pytest.raises(NotFound):
        service.start(image_file, {**SETTINGS, "name": "other"}, start_from="none")


def test_begun_again_or_trained_further_a_run_has_its_mask(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    source = Image.open(image_file).convert("RGB")
    hidden = Image.new("L", source.size, 255)
    hidden.paste(0, (source.width // 2, 0, *source.size))
    source.putalpha(hidden)
    source.save(tmp_path / "masked.png")

    def mask_of(job: Any) -> Any:
        return open_image(service.run_folder(finished(job).name).training_image()).mask

    masked = {**SETTINGS, "name": "masked", "mask_content": "subject"}
    before = mask_of(service.start(tmp_path / "masked.png", masked))
    assert before.getextrema() == (0, 255)
    assert mask_of(service.train_more("masked", 1)).tobytes() == before.tobytes()
    assert mask_of(service.restart("masked")).tobytes() == before.tobytes()
    whole = service.start(image_file, {**SETTINGS, "name": "masked"}, overwrite=True)
    assert mask_of(whole) is None


def test_an_earlier_step_that_was_kept_becomes_a_pair(service: Service, image_file: Path) -> None:
    settings = {"preview_every": 2, "preview_steps": 1, "steps": 5}
    trained(service, image_file, "run", preview_snapshots=True, **settings)
    assert list(service.preview_steps("run")) == [2, 4, 5]
    assert set(service.preview_steps("run")[2]) == {"base", "content", "style", "both"}
    pair = service.save_step("run", 2)
    assert (pair.name, pair.steps) == ("run-step2", "2")
    assert read_metadata(pair.content)["ss_output_name"] == "run-step2_content"
    assert {path.name for path in pair.all_files()} == {
        f"run-step2_{r}.{e}" for r in ("content", "style") for e in ("safetensors", "json", "png")
    }
    preview = Image.open(service.preview_steps("run")[2]["style"])
    on_card = Image.open(pair.style.with_suffix(".png"))
    assert preview.convert("RGB").tobytes() == on_card.convert("RGB").tobytes()
    with pytest.raises(InvalidInput, match="exists already"):
        service.save_step("run", 2)
    with pytest.raises(NotFound, match="kept no LoRAs at step 3"):
        service.save_step("run", 3)
    trained(service, image_file, "plain", **settings)
    with pytest.raises(NotFound, match="kept no LoRAs"):
        service.save_step("plain", 2)


def test_what_is_published_has_its_title_its_licence_and_a_zip(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "one")
    with pytest.raises(InvalidInput, match="no licence 'free'"):
        service.publish("one", licence="free")
    folder = service.publish("one", title="A tree", licence="cc-by-4.0")
    card = (folder / "README.md").read_text("utf-8")
    assert "\n# A tree\n" in card
    assert "license: cc-by-4.0" in card
    assert zip_of(folder).is_file()


@pytest.mark.parametrize(
    ("host", "headers", "here"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("192.168.1.7", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "192.168.1.7"}, False),
        ("testclient", {}, False),
    ],
)
def test_a_folder_is_shown_to_visitors_at_this_computer(
    host: str, headers: dict[str, str], here: bool
) -> None:
    visitor = SimpleNamespace(client=SimpleNamespace(host=host), headers=headers)
    assert is_here(visitor) is here
    assert not is_here(None)


def test_a_folder_is_shown_by_the_desktop_where_there_is_one(tmp_path: Path) -> None:
    assert can_open("win32", {})
    assert can_open("darwin", {})
    assert not can_open("linux", {})
    ran: list[list[str]] = []
    open_folder(tmp_path, ran.append)
    assert ran[0][1:] == [str(tmp_path)]

    def missing(_: list[str]) -> None:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(InvalidInput, match="Open it yourself"):
        open_folder(tmp_path, missing)
    with pytest.raises(InvalidInput, match="no folder"):
        open_folder(tmp_path / "gone", ran.append)


def test_a_name_that_the_webui_has_in_another_folder_is_taken(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    trained(service, image_file, "one")
    content = service.pair("one").content
    older = tmp_path / "loras" / "older"
    older.mkdir()
    for name in ("tree-flat-drawing_style", "new_content", "mixed", "one_content"):
        (older / f"{name}.safetensors").write_bytes(b"")
    service.merge("mixed", [(content, 1.0)])  # a program that finds files by their paths
    content.with_name("mixed.safetensors").unlink()
    service.listed = lambda: tmp_path / "loras"
    with pytest.raises(InvalidInput, match=r"The folder older .* has a file mixed\.safetensors"):
        service.merge("mixed", [(content, 1.0)])
    with pytest.raises(InvalidInput, match=r"has a file new_content\.safetensors"):
        service.rename("one", "new")
    with pytest.raises(InvalidInput, match=r"has a file new_content\.safetensors"):
        service.start(image_file, {"subject": "tree", "style": "flat drawing", "name": "new"})
    assert service.free_name("tree-flat-drawing") == "tree-flat-drawing-2"
    assert service.pair("one").content == content
    service.merge("other", [(content, 1.0)])
    service.listed = lambda: tmp_path / "another"  # where the output folder does not lie
    service.merge("mixed", [(content, 1.0)])
