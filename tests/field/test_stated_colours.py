"""What a file states beside its pixels, where Pillow leaves it to the reader."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from tests.field.test_images import (
    SRGB,
    chunk,
    encoded,
    in_space,
    linear,
    off_by,
    patches,
    pq_curve,
    srgb_curve,
    with_chunks,
)
from unziplora.errors import InvalidInput
from unziplora.images.load import open_image

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow reads no AVIF here")
WIDTH = 128


def ramp() -> np.ndarray[Any, Any]:
    """(96, WIDTH), fp32 from 0 to 1."""
    return np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (96, 1))


def red(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(open_image(data).image, dtype=int)[48, :, 0]


def avif(image: Image.Image, primaries: int, transfer: int, **options: Any) -> bytes:
    """With other numbers in its nclx property than Pillow's, BT.709 and sRGB."""
    data = encoded(image, "AVIF", quality=100, subsampling="4:4:4", **options)
    old = b"nclx" + struct.pack(">2H", 1, 13)
    assert data.count(old) == 1
    return data.replace(old, b"nclx" + struct.pack(">2H", primaries, transfer))


@needs_avif
@pytest.mark.parametrize(
    ("name", "numbers", "curve", "tolerance"),
    [("Display P3", (12, 13), srgb_curve, 2), ("BT.2020", (9, 16), pq_curve, 6)],
)
def test_an_avif_that_states_its_colours_by_numbers(
    name: str, numbers: tuple[int, int], curve: Any, tolerance: int
) -> None:
    image = in_space(name, curve)
    source = open_image(avif(image, *numbers))
    # the mean: of PQ's 8 bits few are left for the darkest
    assert np.abs(_patch_values(source.image) - _patch_values(patches())).mean() <= tolerance
    assert np.abs(_patch_values(image) - _patch_values(patches())).mean() > 2 * tolerance
    assert name in source.notes[0]


def _patch_values(image: Image.Image) -> np.ndarray[Any, Any]:
    """The middle of each of the twelve, away from edges."""
    values = np.asarray(image.convert("RGB"), dtype=int)
    return values[16::32, 16::32]


@needs_avif
def test_an_avif_of_srgb_or_of_unknown_numbers_is_left_alone() -> None:
    for numbers in ((1, 13), (2, 2), (300, 13)):
        source = open_image(avif(patches(), *numbers))
        assert source.notes == ()
        assert np.abs(_patch_values(source.image) - _patch_values(patches())).max() <= 4


@needs_avif
def test_an_avifs_profile_goes_before_its_numbers() -> None:
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    assert open_image(encoded(patches(), "AVIF", icc_profile=profile)).notes == ()


@needs_avif
def test_an_avif_with_damaged_boxes_is_read_or_refused() -> None:
    data = avif(patches(), 12, 13)
    place = data.index(b"ipco") - 4
    for length in (0, 1, 7, 2**31):
        broken = data[:place] + struct.pack(">I", length) + data[place + 4 :]
        with contextlib.suppress(InvalidInput):  # any other error is a bare traceback for its user
            open_image(broken)


def test_gamma_of_a_png_with_16_bits_of_grey() -> None:
    light = linear(Image.fromarray((ramp() * 255).round().astype(np.uint8)))
    image = Image.fromarray((light * 65535).round().astype(np.uint16))
    data = with_chunks(encoded(image), chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert np.abs(red(data) - ramp()[0] * 255).max() <= 8


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_of_any_range(white: float) -> None:
    assert np.abs(red(encoded(Image.fromarray(ramp() * white), "TIFF")) - ramp()[0] * 255).max() < 1


def test_highlights_above_white_are_cut() -> None:
    values = ramp()
    values[:, -20:] = 1.3
    shown = red(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(shown - values[0].clip(0, 1) * 255).max() < 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_0_is_white(bits: int) -> None:
    most = 2**bits - 1
    kind = {8: np.uint8, 16: np.uint16}[bits]
    values = ((1 - ramp()) * most).round().astype(kind)
    plain = encoded(Image.fromarray(values), "TIFF")
    assert np.abs(red(plain) - (1 - ramp()[0]) * 255).max() < 1
    tag = struct.pack("<HHI", 262, 3, 1)
    assert plain.count(tag) == 1
    inverted = plain.replace(tag + struct.pack("<H", 1), tag + struct.pack("<H", 0))
    assert np.abs(red(inverted) - ramp()[0] * 255).max() < 1
    assert off_by(open_image(inverted).image, open_image(plain).image) > 200
