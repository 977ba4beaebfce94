"""Links below the output folder lead nowhere: nothing behind them is shown, copied or removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.app.test_job_queue import ended
from tests.waiting import until
from unziplora.app.own_files import is_own_file, is_own_folder
from unziplora.app.preset_files import PresetFiles
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.ui.html import data_url

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@pytest.fixture
def service(host: Any, tmp_path: Path) -> Service:
    return Service(lambda: host, lambda: tmp_path / "out")


@pytest.fixture
def trained(service: Service, image_file: Path) -> Callable[[], None]:
    def train() -> None:
        job = service.start(image_file, {
            "subject": "tree", "style": "ink", "steps": 2, "rank": 2, "name": "pair",
            "preview_every": 1, "preview_steps": 1,
        })  # fmt: skip
        until(lambda: ended(job))
        assert job.state == "completed", job.error

    return train


def test_delete_publish_and_the_list_follow_no_link(
    service: Service, trained: Callable[[], None], tmp_path: Path
) -> None:
    trained()
    out, others = tmp_path / "out", tmp_path / "others"
    others.mkdir()
    for path in (out / "pair_content.png", *service.run_folder("pair").previews.glob("*_both.png")):
        secret = others / f"{path.stem}-secret.png"
        Image.new("RGB", (64, 64), "purple").save(secret)
        path.unlink()
        path.symlink_to(secret)
        assert data_url(path) is None
    published = service.publish("pair")
    for image in published.rglob("*.png"):
        assert Image.open(image).convert("RGB").getpixel((0, 0)) != (128, 0, 128), image.name
    kept = sorted(others.iterdir())
    service.delete("pair")
    assert sorted(others.iterdir()) == kept
    assert (out / "pair_content.png").is_symlink()


def test_a_pair_of_links_is_no_pair(
    service: Service, trained: Callable[[], None], tmp_path: Path
) -> None:
    trained()
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = out / "pair_style.safetensors"
    file.rename(elsewhere / file.name)
    file.symlink_to(elsewhere / file.name)
    assert service.pairs() == []
    for act in (service.pair, service.delete, service.publish):
        with pytest.raises(InvalidInput, match="no pair"):
            act("pair")
    assert (elsewhere / file.name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("linked", ["previews", "snapshots", "."])
def test_a_runs_folder_with_a_link_in_it_is_not_cleared(
    service: Service, trained: Callable[[], None], tmp_path: Path, linked: str
) -> None:
    trained()
    album = tmp_path / "album"
    album.mkdir()
    for name in ("holiday.png", "model.safetensors", "settings.json", "image.png"):
        (album / name).write_text("mine")
    run = service.run_folder("pair").path
    place = run / linked
    if place.exists():
        place.rename(tmp_path / "aside")
    (run if linked == "." else place).symlink_to(album)
    with pytest.raises(InvalidInput, match="link"):
        service.delete_run("pair")
    assert len(list(album.iterdir())) == 4
    assert "pair" not in [run.name for run in service.runs()]


def test_a_file_is_a_folders_own_only_where_no_link_leads_to_it(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    (folder / "sub").mkdir(parents=True)
    other.mkdir()
    (folder / "sub" / "file").write_text("x")
    (other / "file").write_text("x")
    (folder / "link").symlink_to(other / "file")
    (folder / "linked").symlink_to(other)
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "fifo")
    assert is_own_file(folder, folder / "sub" / "file")
    assert is_own_folder(folder, folder / "sub")
    for name in ("link", "linked/file", "circle", "fifo", "sub", "none", "../other/file", "a\0b",
                 "sub/../../other/file", "x" * 5000):  # fmt: skip
        assert not is_own_file(folder, folder / name), name
    assert not is_own_folder(folder, folder / "linked")
    assert not is_own_file(folder, other / "file")
    (tmp_path / "by link").symlink_to(folder)  # the output folder itself may be one
    assert is_own_file(tmp_path / "by link", tmp_path / "by link" / "sub" / "file")


def test_a_preset_that_is_a_link_or_a_fifo_is_not_read(tmp_path: Path) -> None:
    presets = PresetFiles(lambda: tmp_path)
    presets.write("mine", {"steps": "300"})
    folder = next(tmp_path.rglob("mine.json")).parent
    (tmp_path / "secret").write_text('{"steps": "secret"}')
    (folder / "link.json").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "fifo.json")
    assert presets.names() == ["mine"]
    assert presets.read("mine") == {"steps": "300"}
    for name in ("link", "fifo"):
        with pytest.raises(InvalidInput, match="no preset"):
            presets.read(name)


def test_one_hostile_file_hides_no_other(
    service: Service, trained: Callable[[], None], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    trained()
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    for role in ("content", "style"):
        path = tmp_path / "out" / f"deep_{role}.safetensors"
        save_file({"x": torch.zeros(1)}, path, {"ss_network_args": deep})
    for name in ("nested", "other"):
        folder = tmp_path / "out" / ".unziplora" / name
        folder.mkdir()
        (folder / "settings.json").write_text(deep if name == "nested" else json.dumps([]))
    (tmp_path / "out" / "older").mkdir()
    (tmp_path / "out" / "older" / "settings.json").write_text(deep)
    assert [pair.name for pair in service.pairs()] == ["pair"]
    assert {run.name for run in service.runs()} == {"nested", "other"}
    for name in ("nested", "other"):
        with pytest.raises(InvalidInput, match=r"settings\.json"):
            service.resume(name)
        service.delete_run(name)
    assert service.runs() == []
