"""What an image says of its maker stays with its own file: profile, EXIF and text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.app.test_job_queue import ended
from tests.waiting import until
from unziplora.app.service import Service

OWNER = b"Zoe Quentin"
SETTINGS = {"subject": "tree", "style": "ink", "steps": 2, "rank": 2, "name": "fox",
            "preview_every": 1, "preview_steps": 1, "snapshot_every": 1}  # fmt: skip


def photo(kind: str) -> bytes:
    """With the owner's name in its EXIF, in a comment, and behind an sRGB profile."""
    image = Image.new("RGB", (160, 120), "teal")
    exif = Image.Exif()
    exif[0x013B] = exif[0x8298] = OWNER.decode()  # artist, copyright
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + OWNER
    comment = PngInfo()
    comment.add_text("Author", OWNER.decode())
    options: dict[str, Any] = {"png": {"pnginfo": comment}, "jpeg": {"comment": OWNER}}[kind]
    data = io.BytesIO()
    image.save(data, kind, exif=exif, icc_profile=profile, **options)
    return data.getvalue()


def test_nothing_of_it_is_in_what_a_run_writes(host: Any, tmp_path: Path) -> None:
    service = Service(lambda: host, lambda: tmp_path / "out")
    for kind in ("png", "jpeg"):
        data = photo(kind)
        assert data.count(OWNER) >= 2, kind
        job = service.start(data, {**SETTINGS, "name": kind})
        until(lambda job=job: ended(job))
        assert job.state == "completed", job.error
        service.publish(kind)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    images = [path for path in written if path.suffix == ".png"]
    assert len(written) > 20
    assert len(images) > 8
    for path in written:
        assert OWNER not in path.read_bytes(), path
    for path in images:
        with Image.open(path) as image:
            assert not {"icc_profile", "exif", "Author", "comment"} & image.info.keys(), path
