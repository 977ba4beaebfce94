"""An image with a mask beside it becomes one whose transparency is the mask."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.images.load import open_image, with_mask


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def red(width: int = 96, height: int = 64, alpha: int | None = None) -> Image.Image:
    image = Image.new("RGB", (width, height), (200, 10, 10))
    if alpha is not None:
        image.putalpha(alpha)
    return image


def left_half(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (0, 0, width // 2, height))
    return mask


def test_what_the_mask_hides_becomes_ground() -> None:
    source = open_image(with_mask(png(red()), png(left_half(96, 64))))
    pixels = np.asarray(source.image)
    assert (pixels[:, :48] == (200, 10, 10)).all()
    assert (pixels[:, 48:] == 255).all()
    assert source.mask is not None


def test_what_the_mask_hides_is_kept_for_who_trains_on_it() -> None:
    source = open_image(with_mask(png(red()), png(left_half(96, 64))))
    assert source.whole is not None
    assert source.whole.image.tobytes() == red().tobytes()
    assert source.whole.mask is source.mask
    assert source.whole.notes == ()
    assert "white was put behind it" in source.notes[0]


def test_what_an_image_itself_hides_is_not_known() -> None:
    image = red(alpha=255)
    image.paste((1, 2, 3, 0), (0, 0, 20, 64))
    assert open_image(png(image)).whole is None
    whole = open_image(with_mask(png(image), png(left_half(96, 64)))).whole
    assert whole is not None
    assert (np.asarray(whole.image)[:, :20] == 255).all()
    assert (np.asarray(whole.image)[:, 20:] == (200, 10, 10)).all()


def test_a_mask_of_another_size_is_scaled() -> None:
    source = open_image(with_mask(png(red()), png(left_half(192, 128))))
    assert source.mask is not None
    assert source.mask.size == (96, 64)
    assert (np.asarray(source.image)[:, :46] == (200, 10, 10)).all()


def test_what_was_transparent_stays_so() -> None:
    image = red(alpha=255)
    image.paste((0, 0, 0, 0), (0, 0, 20, 64))
    mask = open_image(with_mask(png(image), png(left_half(96, 64)))).mask
    assert mask is not None
    seen = np.asarray(mask)
    assert (seen[:, :20] == 0).all()
    assert (seen[:, 20:48] == 255).all()
    assert (seen[:, 48:] == 0).all()


def test_a_white_mask_changes_no_pixel() -> None:
    whole = open_image(with_mask(png(red()), png(Image.new("L", (96, 64), 255))))
    assert whole.mask is None
    assert whole.image.tobytes() == red().tobytes()


def test_a_mask_of_another_shape_is_refused_with_both_sizes() -> None:
    with pytest.raises(InvalidInput, match=r"64 x 64 pixels, the image 96 x 64"):
        with_mask(png(red()), png(left_half(64, 64)))
