"""A manifest on the page: one list and its images, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.waiting import until
from unziplora.app.manifest_upload import queue_manifest
from unziplora.app.service import Service
from unziplora.errors import InvalidInput

ROW = "{image},tree,flat drawing,{name},2,2,64\n"
HEADER = "image,subject,style,name,steps,rank,resolution\n"


@pytest.fixture
def service(host: Any, tmp_path: Path) -> Iterator[Service]:
    out = tmp_path / "out"
    out.mkdir()
    service = Service(lambda: host, lambda: out)
    yield service
    service.close()


@pytest.fixture
def uploaded(tmp_path: Path) -> list[Path]:
    images = []
    for name in ("one_image.png", "two.png"):  # as gradio keeps "one image.png"
        Image.new("RGB", (128, 128), "navy").save(tmp_path / name)
        images.append(tmp_path / name)
    path = tmp_path / "jobs.csv"
    rows = (("photos/one image.png", "first"), (r"C:\photos\two.png", "second"))
    path.write_text(HEADER + "".join(ROW.format(image=i, name=n) for i, n in rows))
    return [*images, path]


def test_every_line_becomes_a_run(service: Service, uploaded: list[Path]) -> None:
    assert queue_manifest(service, uploaded) == "2 runs are in the queue."
    out = service.folder()
    assert until(lambda: (out / "second_style.safetensors").is_file())
    assert (out / "first_style.safetensors").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + ROW.format(image="/etc/passwd", name="x"), "no image '/etc/passwd'"),
        (HEADER + ROW.format(image="two.png", name="a/b"), "a/b"),
        (HEADER, "names no image"),
        (HEADER + ROW.format(image="bad.png", name="bad"), "bad.png"),
    ],
)
def test_nothing_is_queued_of_a_list_with_a_fault(
    service: Service, uploaded: list[Path], text: str, words: str
) -> None:
    bad = uploaded[0].with_name("bad.png")
    bad.write_bytes(b"no image")
    good = ROW.format(image="two.png", name="good")
    uploaded[2].write_text(HEADER + good + text.removeprefix(HEADER) if text != HEADER else HEADER)
    with pytest.raises(InvalidInput, match=words):
        queue_manifest(service, [*uploaded, bad])
    assert service.jobs.all() == []


def test_a_name_that_is_taken_is_found_before_anything_is_queued(
    service: Service, uploaded: list[Path]
) -> None:
    (service.folder() / "second_content.safetensors").write_bytes(b"another's")
    with pytest.raises(InvalidInput, match="second_content"):
        queue_manifest(service, uploaded)
    assert service.jobs.all() == []


def test_one_list_is_needed(service: Service, uploaded: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="0 lists"):
        queue_manifest(service, uploaded[:2])
    with pytest.raises(InvalidInput, match="2 lists"):
        queue_manifest(service, [*uploaded, uploaded[2].with_suffix(".jsonl")])
