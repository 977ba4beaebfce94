"""Any image becomes RGB on white, upright, with sides of 64; what is none is refused in words."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage, fit, open_image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def gradient(width: int = 96, height: int = 80) -> Image.Image:
    """Red grows to the right, green downwards."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return Image.fromarray(np.stack([red, green, 0 * red + 60], axis=-1).astype(np.uint8))


def mean_error(image: Image.Image, expected: Image.Image) -> float:
    assert image.mode == "RGB"
    assert image.size == expected.size
    one, other = (np.asarray(i.convert("RGB"), dtype=float) for i in (image, expected))
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("PNG", "RGB", 0), ("PNG", "RGBA", 0), ("PNG", "L", 0), ("PNG", "LA", 0), ("PNG", "1", 0),
        ("PNG", "P", 0), ("JPEG", "RGB", 3), ("JPEG", "L", 3), ("JPEG", "CMYK", 3),
        ("WEBP", "RGB", 4), ("WEBP", "RGBA", 4), ("GIF", "P", 0), ("GIF", "L", 0),
        ("BMP", "RGB", 0), ("TIFF", "CMYK", 1), ("TIFF", "RGB", 0), ("TIFF", "YCbCr", 3),
    ],
)  # fmt: skip
def test_every_mode_of_every_format_opens_as_rgb(kind: str, mode: str, tolerance: float) -> None:
    image = gradient().convert(mode)
    # Pillow 12.3 cannot read the uncompressed YCbCr that it writes
    options = {"compression": "jpeg"} if (kind, mode) == ("TIFF", "YCbCr") else {}
    source = open_image(encoded(image, kind, **options))
    assert mean_error(source.image, image) <= tolerance
    assert source.notes == () or mode == "CMYK"


def half_transparent() -> Image.Image:
    """Red; its left half is transparent, over a hidden black."""
    image = Image.new("RGBA", (80, 80), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 40, 80))
    return image


def transparent_files() -> dict[str, bytes]:
    image = half_transparent()
    palette = Image.new("P", (80, 80), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(0, (0, 0, 40, 80))
    keyed = Image.new("RGB", (80, 80), (255, 0, 0))
    keyed.paste((1, 2, 3), (0, 0, 40, 80))
    return {
        "RGBA": encoded(image),
        "WebP": encoded(image, "WEBP", lossless=True),
        "palette with one transparent colour": encoded(palette, transparency=0),
        "palette with an alpha for each": encoded(palette, transparency=bytes([0, 255])),
        "GIF": encoded(palette, "GIF", transparency=0),
        "RGB with a colour key": encoded(keyed, transparency=(1, 2, 3)),
    }


@pytest.mark.parametrize("which", transparent_files())
def test_what_is_transparent_shows_white(which: str) -> None:
    image = open_image(transparent_files()[which]).image
    assert image.mode == "RGB"
    assert image.getpixel((5, 40)) == (255, 255, 255)
    assert image.getpixel((75, 40)) == (255, 0, 0)


def test_transparent_greys_show_white_too() -> None:
    image = Image.new("LA", (80, 80), (0, 128))
    value = open_image(encoded(image)).image.getpixel((5, 5))
    assert value == (127, 127, 127)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (64, 1))
    expected = np.round(values[0] / 257)
    for kind in ("PNG", "TIFF"):
        shown = np.asarray(open_image(encoded(Image.fromarray(values), kind)).image)
        assert np.abs(shown[0, :, 0] - expected).max() <= 1


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    values = np.full((64, 64), 200, dtype=np.uint16)
    shown = np.asarray(open_image(encoded(Image.fromarray(values))).image)
    assert shown.max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_that_was_turned_gives_an_upright_image(orientation: int) -> None:
    turned = {
        1: (), 2: (Image.Transpose.FLIP_LEFT_RIGHT,), 3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,), 5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,), 7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }  # fmt: skip
    stored = gradient()
    for step in turned[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert mean_error(open_image(encoded(stored, exif=exif)).image, gradient()) == 0


def test_a_broken_orientation_mark_does_not_cost_the_image() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert open_image(data).image.size == (96, 80)


def test_of_an_animated_image_the_first_frame_is_used_and_said() -> None:
    frames = [gradient().convert("P"), gradient().rotate(90).convert("P")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True
        )
        source = open_image(data)
        assert len(source.notes) == 1
        assert "first frame" in source.notes[0]
        assert mean_error(source.image, frames[0]) < 5


def test_a_phone_photo_with_a_second_image_in_it_is_not_animated() -> None:
    data = encoded(gradient(), "MPO", save_all=True, append_images=[gradient()])
    source = open_image(data)
    assert source.notes == ()
    assert mean_error(source.image, gradient()) < 4


def test_a_path_and_its_bytes_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "Katze ü.png"
    gradient().save(path)
    for source in (path, str(path), path.read_bytes()):
        assert mean_error(open_image(source).image, gradient()) == 0


def png_that_says(width: int, height: int) -> bytes:
    """A header that promises many pixels, and hardly any data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize("size", [(30_000, 30_000), (12_000, 9_000), (100_001, 1000)])
def test_a_bomb_is_refused_before_it_is_decoded_whatever_the_host_set_in_pillow(
    limit: int | None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(InvalidInput, match="million"):
        open_image(png_that_says(*size))


@pytest.mark.parametrize("size", [(1, 1), (63, 500), (500, 63)])
def test_a_image_too_small_to_learn_from_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="64"):
        open_image(encoded(Image.new("RGB", size)))


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_a_truncated_image_is_refused_whatever_the_host_set_in_pillow(
    kind: str, trusting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", trusting)
    with pytest.raises(InvalidInput):
        open_image(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is trusting


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]))
def test_rubbish_is_refused_in_words(data: bytes, kind: str) -> None:
    whole = encoded(gradient(64, 64), kind)
    for rubbish in (data, whole[:20] + data, data + whole[20:]):
        with contextlib.suppress(InvalidInput):  # anything else would be a bare traceback to a user
            assert open_image(rubbish).image.mode == "RGB"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    # PostScript would start another program
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n")
    for name in ("missing.png", "empty.png", "text.png", "page.png", ".", "a\0b", "x" * 300):
        with pytest.raises(InvalidInput):
            open_image(tmp_path / name)


@given(
    st.integers(64, 700), st.integers(64, 700), st.sampled_from([64, 128, 256, 300]),
    st.sampled_from(["aspect", "centre"]),
)  # fmt: skip
def test_the_fitted_image_and_what_sdxl_is_told_of_it(
    width: int, height: int, resolution: int, crop: Any
) -> None:
    fitted = fit(SourceImage(Image.new("RGB", (width, height), (255, 0, 0))), resolution, crop)
    h, w = fitted.pixels.shape[2:]
    assert fitted.pixels.shape == (1, 3, h, w)
    assert h % 64 == w % 64 == 0
    assert fitted.pixels.dtype == torch.float32
    assert fitted.pixels[0, 0].eq(1).all()
    assert fitted.pixels[0, 1:].eq(-1).all()
    assert fitted.sizes.target == (h, w)
    assert fitted.sizes.original == (height, width)
    top, left = fitted.sizes.crop
    # scaled until it just covers: one side fits, the other is cut equally at both ends
    cover = max(w / width, h / height)
    assert abs(2 * left - (width * cover - w)) <= 1.5
    assert abs(2 * top - (height * cover - h)) <= 1.5
    if crop == "centre":
        assert h == w


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((1000, 1000), (1024, 1024)), ((4032, 3024), (896, 1152)), ((1920, 1080), (768, 1344)),
        ((832, 1216), (1216, 832)), ((300, 300), (1024, 1024)),
    ],
)  # fmt: skip
def test_common_images_get_the_sizes_sdxl_was_trained_on(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    fitted = fit(SourceImage(Image.new("RGB", size)), 1024, "aspect")
    assert fitted.sizes.target == target


def test_a_strip_is_cut_to_what_sdxl_was_trained_on_and_that_is_said() -> None:
    source = open_image(encoded(Image.new("RGB", (4000, 64))))
    assert "4:1" in source.notes[0]
    fitted = fit(source, 512, "aspect")
    assert fitted.sizes.target == (256, 1024)
    assert fitted.sizes.crop[1] > 1000


def test_left_is_left_and_the_middle_is_kept() -> None:
    fitted = fit(SourceImage(gradient(200, 100)), 128, "centre")
    red, green = fitted.pixels[0, 0], fitted.pixels[0, 1]
    assert red[:, 0].mean() == pytest.approx(-0.5, abs=0.03)  # a quarter is cut on each side
    assert red[:, -1].mean() == pytest.approx(0.5, abs=0.03)
    assert green[0].mean() < -0.95
    assert green[-1].mean() > 0.95


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    file = io.BytesIO()
    Image.effect_noise((128, 96), 80).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert open_image(data).image.size == (128, 96)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    with pytest.raises(InvalidInput, match="far more passes"):
        open_image(data[:end] + data[start:end] * 1000 + data[end:])


def test_the_video_behind_a_phones_image_is_not_taken_for_scans() -> None:
    file = io.BytesIO()
    Image.effect_noise((128, 96), 80).save(file, "JPEG")
    video = b"\xff\xda of a video" * 1000  # the mark alone, as chance has it in megabytes
    assert open_image(file.getvalue() + video).image.size == (128, 96)


def test_a_gif_whose_second_frame_is_damaged_is_named() -> None:
    """Pillow looks at it when it is asked whether the image moves, and not before."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (80, 72), colour) for colour in ("navy", "ivory", "red")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    data = file.getvalue()
    second = data.rindex(b"\x21\xf9", 0, data.rindex(b"\x21\xf9"))  # its extension
    for cut in range(second, second + 12):
        with contextlib.suppress(InvalidInput):
            assert open_image(data[:cut]).image.size == (80, 72)
    with pytest.raises(InvalidInput, match="damaged or cut off"):
        open_image(data[: second + 1])
