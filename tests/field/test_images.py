"""Images as people have them: other colours, other formats, harmless damage, transparency."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin, features

from unziplora.errors import InvalidInput
from unziplora.images.load import open_image

SRGB = ImageCms.createProfile("sRGB")
COLOURS = [
    (220, 40, 40), (40, 160, 60), (40, 70, 200), (235, 200, 60), (200, 160, 140), (120, 60, 150),
    (30, 30, 30), (240, 240, 240), (128, 128, 128), (30, 150, 170), (240, 120, 30), (90, 60, 40),
]  # fmt: skip


def patches(width: int = 128, height: int = 96) -> Image.Image:
    """Twelve colours that every gamut holds."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for i, colour in enumerate(COLOURS):
        x, y = (i % 4) * width // 4, (i // 4) * height // 3
        draw.rectangle((x, y, x + width // 4, y + height // 3), fill=colour)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def chunk(kind: bytes, content: bytes, *, wrong: bool = False) -> bytes:
    crc = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks after its first."""
    return data[:33] + b"".join(chunks) + data[33:]


def off_by(image: Image.Image, wanted: Image.Image) -> int:
    assert image.size == wanted.size
    one, other = (np.asarray(i.convert("RGB"), dtype=int) for i in (image, wanted))
    return int(np.abs(one - other).max())


# Linear light of sRGB in another space's primaries, by the textbook, independent of the code here.
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
SPACES = {  # to XYZ (Lindbloom)
    "Adobe RGB": np.array([[0.5767309, 0.1855540, 0.1881852], [0.2973769, 0.6273491, 0.0752741],
                           [0.0270343, 0.0706872, 0.9911085]]),
    "Display P3": np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869],
                            [0.0, 0.0451134, 1.0439444]]),
    "BT.2020": np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017],
                         [0.0, 0.0280727, 1.0609851]]),
    "BT.709": XYZ,
}  # fmt: skip


def linear(image: Image.Image) -> np.ndarray[Any, Any]:
    v = np.asarray(image, dtype=float) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def in_space(name: str, encode: Callable[[Any], Any]) -> Image.Image:
    """The patches with their values in another space."""
    values = linear(patches()) @ (np.linalg.inv(SPACES[name]) @ XYZ).T
    return Image.fromarray((encode(values.clip(0, 1)) * 255).round().astype(np.uint8))


def srgb_curve(v: Any) -> Any:
    return np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.maximum(v, 1e-9) ** (1 / 2.4) - 0.055)


def pq_curve(v: Any) -> Any:
    y = (np.asarray(v) * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg_curve(v: Any) -> Any:
    e = np.asarray(v) * 0.26496256
    high = 0.17883277 * np.log(np.maximum(12 * e - 0.28466892, 1e-9)) + 0.55991073
    return np.where(e <= 1 / 12, np.sqrt(3 * e), high)


@pytest.mark.parametrize(
    ("name", "coding", "curve", "tolerance"),
    [
        ("Display P3", (12, 13), srgb_curve, 2),
        ("BT.2020", (9, 14), None, 4),
        ("BT.2020", (9, 16), pq_curve, 8),  # 8 bits of PQ have few steps
        ("BT.2020", (9, 18), hlg_curve, 6),
        ("BT.709", (1, 8), lambda v: v, 8),  # and so has linear light
    ],
)
def test_a_png_that_states_its_colours_by_numbers(
    name: str, coding: tuple[int, int], curve: Any, tolerance: int
) -> None:
    curve = curve or (lambda v: np.where(v < 0.018, 4.5 * v, 1.099 * v**0.45 - 0.099))
    image = in_space(name, curve)
    data = with_chunks(encoded(image), chunk(b"cICP", bytes([*coding, 0, 1])))
    source = open_image(data)
    assert off_by(source.image, patches()) <= tolerance
    assert off_by(image, patches()) > 20
    assert name in source.notes[0]


def test_gamma_and_primaries_of_a_png() -> None:
    image = in_space("Adobe RGB", lambda v: v ** (1 / 2.2))
    chrm = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    gama = struct.pack(">I", 45455)
    for other in ((), (chunk(b"sRGB", b"\0"),)):
        data = with_chunks(encoded(image), *other, chunk(b"gAMA", gama), chunk(b"cHRM", chrm))
        source = open_image(data)
        if other:  # sRGB goes before
            assert source.image.tobytes() == image.tobytes()
            assert source.notes == ()
        else:
            assert off_by(source.image, patches()) <= 9  # the same gamma is read as sRGB's curve
            assert "gAMA" in source.notes[0]
    dark = Image.fromarray((linear(patches()) * 255).round().astype(np.uint8))
    source = open_image(with_chunks(encoded(dark), chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert off_by(source.image, patches()) <= 8


def test_gamma_that_only_says_srgb_changes_nothing() -> None:
    image = patches()
    source = open_image(with_chunks(encoded(image), chunk(b"gAMA", struct.pack(">I", 45455))))
    assert source.image.tobytes() == image.tobytes()
    assert source.notes == ()


def swapped_profile() -> bytes:
    """A profile of our own: sRGB's with red and green exchanged, so that using it shows."""
    data = bytearray(ImageCms.ImageCmsProfile(SRGB).tobytes())
    at = {bytes(data[p : p + 4]): p for p in range(132, 132 + 12 * data[131], 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12], data[red + 4 : red + 12])  # fmt: skip
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_an_embedded_profile_is_used_in_every_format_and_mode(kind: str, mode: str) -> None:
    if (kind, mode) in (("JPEG", "RGBA"), ("JPEG", "P"), ("WEBP", "P"), ("WEBP", "L")):
        pytest.skip("no such file")
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    image = patches().convert(mode)
    data = encoded(image, kind, icc_profile=swapped_profile(), **options)
    source = open_image(data)
    red, green, blue = image.convert("RGB").split()
    assert off_by(source.image, Image.merge("RGB", (green, red, blue))) <= 4
    assert "converted to sRGB" in source.notes[0] or mode == "L"  # grey stays grey
    assert source.image.info == {}


def test_srgb_by_its_profile_changes_nothing_and_says_nothing() -> None:
    image = patches()
    source = open_image(encoded(image, icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes()))
    assert source.image.tobytes() == image.tobytes()
    assert source.notes == ()


def test_sixteen_bits_with_a_profile() -> None:
    values = np.asarray(patches()).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 128, 96, 16, 2, 0, 0, 0)
    profile = b"icc\0\0" + zlib.compress(swapped_profile())
    data = b"\x89PNG\r\n\x1a\n" + b"".join([
        chunk(b"IHDR", header), chunk(b"iCCP", profile), chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b"")])  # fmt: skip
    red, green, blue = patches().split()
    assert off_by(open_image(data).image, Image.merge("RGB", (green, red, blue))) <= 3


def test_cie_lab_is_read() -> None:
    lab = ImageCms.profileToProfile(
        patches(), SRGB, ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert off_by(open_image(encoded(lab, "TIFF")).image, patches()) <= 8  # 8 bits of Lab are few


def test_cmyk_without_a_profile_is_read_and_said_to_be_approximate() -> None:
    source = open_image(encoded(patches().convert("CMYK"), "JPEG", quality=97))
    assert "approximate" in source.notes[0]


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200, swapped_profile()[:200]])
def test_a_damaged_profile_does_not_cost_the_image(profile: bytes) -> None:
    source = open_image(encoded(patches(), icc_profile=profile))
    assert off_by(source.image, patches()) == 0
    assert "taken as sRGB" in source.notes[0]


def test_a_profile_for_another_kind_of_image_is_left_out() -> None:
    source = open_image(encoded(patches().convert("CMYK"), "JPEG", icc_profile=swapped_profile()))
    assert "another kind of image" in source.notes[0]


def test_a_camera_that_marks_adobe_rgb_without_a_profile() -> None:
    image = in_space("Adobe RGB", lambda v: v ** (256 / 563))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    source = open_image(encoded(image, "JPEG", quality=98, subsampling=0, exif=exif))
    assert off_by(source.image, patches()) <= 8
    assert "Adobe RGB" in source.notes[0]


def heavy_pngs() -> Iterator[Any]:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", '{"a": 1}' * 300_000, zip=True)
    yield "2 MB of compressed text", encoded(patches(), pnginfo=text)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("parameters", "犬, " * 400_000, zip=True)
    yield "2 MB of compressed international text", encoded(patches(), pnginfo=text)
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000)
    yield "3 MB of text", encoded(patches(), pnginfo=text)
    large = ImageCms.ImageCmsProfile(SRGB).tobytes() + b"\0" * 2_000_000
    yield "a profile of 2 MB", encoded(patches(), icc_profile=large)


@pytest.mark.parametrize(("what", "data"), heavy_pngs())
def test_what_others_put_into_a_png_does_not_cost_the_image(what: str, data: bytes) -> None:
    assert off_by(open_image(data).image, patches()) == 0, what


def line_art(colour: tuple[int, int, int], hidden: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGBA", (128, 128), (*hidden, 0))
    ImageDraw.Draw(image).ellipse((20, 20, 108, 108), outline=(*colour, 255), width=6)
    return image


@pytest.mark.parametrize("hidden", [(255, 255, 255), (255, 0, 255)])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_white_lines_on_transparency_can_be_seen(kind: str, hidden: Any) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    source = open_image(encoded(line_art((255, 255, 255), hidden), kind, **options))
    assert source.image.getpixel((64, 64)) == (0, 0, 0)
    assert source.image.getpixel((64, 23)) == (255, 255, 255)
    assert "black was put behind it" in source.notes[0]
    assert source.mask is not None
    assert (source.mask.getpixel((64, 64)), source.mask.getpixel((64, 23))) == (0, 255)


def test_other_lines_on_transparency_stay_on_white() -> None:
    source = open_image(encoded(line_art((200, 30, 30), (0, 0, 0))))
    assert source.image.getpixel((64, 64)) == (255, 255, 255)
    assert "white was put behind it" in source.notes[0]


def test_an_image_that_is_transparent_everywhere_is_refused() -> None:
    with pytest.raises(InvalidInput, match="transparent everywhere"):
        open_image(encoded(Image.new("RGBA", (80, 80), (255, 0, 0, 0))))


def test_the_mask_turns_with_the_image() -> None:
    image = Image.new("RGBA", (96, 64), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    source = open_image(encoded(image, exif=exif))
    assert source.mask is not None
    assert source.mask.size == source.image.size == (64, 96)
    assert source.mask.getpixel((32, 3)) == 0
    assert source.mask.getpixel((32, 50)) == 255


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read() -> None:
    image = open_image(encoded(patches(), "AVIF", quality=95)).image
    for i, colour in enumerate(COLOURS):  # in the middle of each patch
        pixel = image.getpixel(((2 * (i % 4) + 1) * 16, (2 * (i // 4) + 1) * 16))
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 6


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"), (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\xff\x0a\xfa\x7f\x01\x90", "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"), (b"8BPS\0\x01", "Photoshop"),
        (b"%PDF-1.7", "PDF"), (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg>", "SVG"),
        (b"<!DOCTYPE html><html>", "web page"), (b"\0\0\0\x20ftypisom", "video"),
        (b"II*\0\x10\0\0\0CR\x02\0", "raw file"), (b"PK\x03\x04", "ZIP"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_called_by_its_name(
    start: bytes, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(start + b"\0" * 300)
    with pytest.raises(InvalidInput, match=rf"photo\.jpg is .*{what}"):
        open_image(path)


def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(-20, 20, (384, 512, 3))
    values = np.asarray(patches(512, 384)).astype(int) + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_two_bytes_is_read(
    mode: str, subsampling: int, progressive: bool
) -> None:
    options = {"quality": 92, "subsampling": subsampling, "progressive": progressive}
    data = encoded(photo().convert(mode), "JPEG", **options)
    source = open_image(data[:-2])
    assert source.image.tobytes() == open_image(data).image.tobytes()
    assert "slightly damaged" in source.notes[0]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99, 0.9995])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_part_of_the_image_is_refused(share: float, progressive: bool) -> None:
    data = encoded(photo(), "JPEG", quality=92, progressive=progressive)
    with pytest.raises(InvalidInput, match="damaged or cut off"):
        open_image(data[: int(share * len(data))])


def test_harmless_damage_of_a_png_does_not_cost_the_image() -> None:
    data = encoded(patches())
    for damaged, noted in {
        with_chunks(data, chunk(b"tEXt", b"Software\0x", wrong=True)): "checksum",
        data[:-12]: "end is missing",
        data[:-5]: "end is missing",
        data + b"junk" * 1000: "",
    }.items():
        source = open_image(damaged)
        assert off_by(source.image, patches()) == 0
        assert noted in "".join(source.notes)
        assert bool(source.notes) == bool(noted)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_png_with_a_damaged_image_is_refused(at: float) -> None:
    data = bytearray(encoded(photo()))
    data[int(at * len(data))] ^= 0x55
    with pytest.raises(InvalidInput, match="damaged or cut off"):
        open_image(bytes(data))
    with pytest.raises(InvalidInput, match="damaged or cut off"):
        open_image(encoded(photo())[: int(at * len(data))])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_or_device_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(InvalidInput, match="pipe or a device"):
            open_image(tmp_path / name)
