"""A run is found again by what decides its result, whatever became of ComfyUI meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unziplora
from unziplora.comfyui import finished, loras
from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage, open_image
from unziplora.training.events import Finished
from unziplora.training.run import Run
from unziplora.training.settings import ResolvedSettings, Settings

BASE = Settings("lantern", "paper cut", steps=6)
KEY = "a key"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Of LoRAs and of runs."""
    for name in ("loras", "models"):
        (tmp_path / name).mkdir()
    return tmp_path / "loras", tmp_path / "models" / ".unziplora"


def begin(image: Path, host: Any, folders: tuple[Path, Path], name: str = "lantern") -> Run:
    return unziplora.train(
        image, subject="lantern", style="paper cut", host=host, out=folders[0], runs=folders[1],
        settings={"steps": 6, "name": name, "save_minutes": 100},
    )  # fmt: skip


def finish(run: Run, key: str = KEY) -> None:
    for event in run:
        if not isinstance(event, Finished):
            finished.note(run.folder, key)


def key(settings: ResolvedSettings, image: Image.Image | None = None, model: str = "m") -> str:
    source = SourceImage(image or Image.new("RGB", (64, 64), "red"))
    return finished.key_of(model, source, settings, None)


def test_the_key_is_of_what_decides_the_result() -> None:
    same = key(BASE.resolve())
    assert key(Settings("lantern", "paper cut", steps=6, preview_every=2).resolve()) == same
    assert key(Settings("lantern", "paper cut", steps=7).resolve()) != same
    assert key(Settings("lamp", "paper cut", steps=6).resolve()) != same
    assert key(BASE.resolve(), Image.new("RGB", (64, 64), "blue")) != same
    assert key(BASE.resolve(), Image.new("RGB", (32, 128), "red")) != same
    assert key(BASE.resolve(), model="another") != same


def test_runs_lie_apart_from_their_files(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, runs = folders
    finish(begin(image_file, host, folders))
    assert {path.suffix for path in out.rglob("*")} <= {".safetensors", ".json", ".png"}
    assert not list(out.glob(".*"))
    assert (runs / "lantern" / "settings.json").is_file()


def test_a_finished_run_is_found_with_its_files(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, runs = folders
    finish(begin(image_file, host, folders))
    ((folder, info),) = finished.earlier_runs(runs, out, KEY)
    pair = finished.pair_of(folder, info)
    assert pair is not None
    assert pair.content == out / "lantern_content.safetensors"
    assert finished.earlier_runs(runs, out, "another key") == []


def test_a_pair_that_was_renamed_is_found_and_one_that_was_deleted_is_not(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, runs = folders
    finish(begin(image_file, host, folders))
    ((folder, info),) = finished.earlier_runs(runs, out, KEY)
    for role in ("content", "style"):
        path = out / f"lantern_{role}.safetensors"
        path.rename(out / f"other_{role}.safetensors")
    renamed = finished.pair_of(folder, info)
    assert renamed is not None
    assert renamed.name == "other"
    renamed.style.unlink()
    assert finished.pair_of(folder, info) is None


def test_a_stopped_run_continues_into_the_same_files(
    image_file: Path, documented: dict[str, Any], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out, _ = folders
    whole = documented["MyHost"](documented["small_unet"]())
    (tmp_path / "whole").mkdir()
    finish(begin(image_file, whole, (tmp_path / "whole", tmp_path / "whole" / "runs")))

    stopped = begin(image_file, documented["MyHost"](documented["small_unet"]()), folders)
    for event in stopped:
        if getattr(event, "step", 0) == 3:
            stopped.send("stop")
    ((folder, info),) = [(stopped.folder, stopped.info)]
    assert finished.pair_of(folder, info) is None
    assert folder.saved_step(info.pair) == 3
    again = documented["MyHost"](documented["small_unet"]())
    finish(unziplora.resume(folder.path, host=again, out=out))
    for role in ("content", "style"):
        name = f"lantern_{role}.safetensors"
        one, other = loras.read(out / name), loras.read(tmp_path / "whole" / name)
        assert one.keys() == other.keys()
        assert all(one[key].equal(other[key]) for key in one)


def test_a_name_that_is_taken_gets_a_number(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, runs = folders
    assert finished.free_name(out, runs, "lantern") == "lantern"
    finish(begin(image_file, host, folders))
    assert finished.free_name(out, runs, "lantern") == "lantern-2"
    with pytest.raises(InvalidInput, match="exists already"):
        begin(image_file, host, folders)
    for path in out.iterdir():  # its files moved away: the run's folder has the name still
        path.unlink()
    assert finished.free_name(out, runs, "lantern") == "lantern-2"


def test_a_note_that_is_damaged_hides_no_other(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, runs = folders
    finish(begin(image_file, host, folders))
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"key": "a key"}')):
        (runs / name).mkdir()
        (runs / name / "comfyui.json").write_text(text)
    assert [folder.name for folder, _ in finished.earlier_runs(runs, out, KEY)] == ["lantern"]


def test_pairs_are_combined_and_saved(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, _ = folders
    finish(begin(image_file, host, folders))
    content, style = (loras.read(out / f"lantern_{role}.safetensors") for role in
                      ("content", "style"))  # fmt: skip
    combined = loras.merge((content, 1.0), (style, 0.5), "add")
    assert combined.info.role == "merged"
    name = next(iter(content)).partition(".")[0]

    def change(lora: Any) -> Any:
        down, up = (lora[f"{name}.lora_{part}.weight"].double() for part in ("down", "up"))
        return lora[f"{name}.alpha"].double() / len(down) * up @ down

    expected = change(content) + 0.5 * change(style)
    assert (change(combined) - expected).abs().max() <= 2**-9 * expected.abs().max()
    projected = loras.merge((content, 1.0), (style, 0.5), "np")
    assert {key: tensor.shape for key, tensor in projected.items()} == {
        key: tensor.shape for key, tensor in combined.items()
    }
    assert any(not projected[key].equal(combined[key]) for key in combined)

    loras.save_pair(content, style, out, "copy", overwrite=False)
    copy = loras.read(out / "copy_content.safetensors")
    assert all(copy[key].equal(content[key]) for key in content)
    assert copy.info.title == "copy_content (content)"
    with pytest.raises(InvalidInput, match="exists already"):
        loras.save_pair(content, style, out, "copy", overwrite=False)
    with pytest.raises(InvalidInput, match="not the content LoRA of a pair"):
        loras.save_pair(style, content, out, "swapped", overwrite=False)
    with pytest.raises(InvalidInput, match="not the style LoRA of a pair"):
        loras.save_pair(content, dict(style), out, "nameless", overwrite=False)
    empty = loras.LoraTensors({}, style.metadata, style.name)
    with pytest.raises(InvalidInput):
        loras.save_pair(content, empty, out, "half", overwrite=False)
    assert not list(out.glob("half*"))
    with pytest.raises(InvalidInput, match="exists already"):  # one that came meanwhile
        loras.write(content, out / "copy_content.safetensors", new=True)


def test_the_halves_of_two_pairs_become_one(
    image_file: Path, host: Any, folders: tuple[Path, Path]
) -> None:
    out, _ = folders
    for name in ("one", "two"):
        finish(begin(image_file, host, folders, name))
    content = loras.read(out / "one_content.safetensors")
    style = loras.read(out / "two_style.safetensors")
    assert content.info.pair != style.info.pair
    (out / "new_style.safetensors").symlink_to(out / "not there")  # a name that is taken, too
    with pytest.raises(InvalidInput, match="exists already"):
        loras.save_pair(content, style, out, "new", overwrite=False)
    (out / "new_style.safetensors").unlink()
    loras.save_pair(content, style, out, "new", overwrite=False)
    pair = finished.find_pair(out, "new")
    assert pair is not None
    assert pair.content_trigger == "sks lantern"


def test_images_read_twice_are_the_same_source(image_file: Path) -> None:
    one, other = open_image(image_file), open_image(image_file)
    settings = BASE.resolve()
    assert finished.key_of("m", one, settings, None) == finished.key_of("m", other, settings, None)
