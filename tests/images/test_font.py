"""The font of captions where Pillow has only its bitmap font."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageFont

from unziplora.images import font


def no_size(*size: int) -> ImageFont.ImageFont:
    """As Pillow's before 10.1."""
    if size:
        raise TypeError("load_default() takes 0 positional arguments but 1 was given")
    return BITMAP


BITMAP = ImageFont.ImageFont()  # which every Pillow has


def test_an_old_pillow_takes_the_first_file_that_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = ImageFont.load_default(20)
    if not isinstance(whole, ImageFont.FreeTypeFont):
        pytest.skip("This Pillow was built without FreeType.")
    file = tmp_path / "own.ttf"
    file.write_bytes(whole.font_bytes)
    monkeypatch.setattr(ImageFont, "load_default", no_size)
    monkeypatch.setattr(font, "FILES", [str(tmp_path / "absent.ttf"), str(file)])
    taken = font.font_of(20)
    assert isinstance(taken, ImageFont.FreeTypeFont)
    assert taken.size == 20


def test_without_any_file_the_bitmap_font_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFont, "load_default", no_size)
    monkeypatch.setattr(font, "FILES", [])
    assert font.font_of(20) is BITMAP
