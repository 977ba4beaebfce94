"""Profiles of printers and of grey images, made here by the ICC's specification (ICC.1:2001-04).

The printer's exchanges cyan and magenta, so that an image is right only where its profile is used;
the grey one is linear light. Profiles that come with printing software are tried where
UNZIPLORA_ICC names their folder.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from unziplora.images.load import open_image

D50 = (0.9642, 1.0, 0.8249)
SRGB_IN_D50 = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169],
                        [0.0139322, 0.0971045, 0.7141733]])  # fmt: skip
COLOURS = np.array([(220, 40, 40), (40, 160, 60), (40, 70, 200), (235, 200, 60), (30, 150, 170),
                    (120, 60, 150), (200, 160, 140), (128, 128, 128)])  # fmt: skip


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2 with these tags."""
    white = b"XYZ \0\0\0\0" + b"".join(map(fixed, D50))
    tags = {**tags, b"wtpt": white, b"cprt": b"text\0\0\0\0none\0"}
    body, table = b"", struct.pack(">I", len(tags))
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x02400000, kind, space, pcs)
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + b"".join(map(fixed, D50)) + b"\0" * 48
    return header + table + body


def lab(rgb: np.ndarray) -> np.ndarray:
    """L, a, b under D50 of sRGB from 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = linear @ SRGB_IN_D50.T / D50
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def printer() -> bytes:
    """CMYK to Lab by a table; magenta takes the red away, and cyan the green."""
    grid = np.linspace(0, 1, 9)
    c, m, y, k = np.array(list(itertools.product(grid, repeat=4))).T
    rgb = np.stack([(1 - m) * (1 - k), (1 - c) * (1 - k), (1 - y) * (1 - k)], axis=-1)
    values = lab(rgb)
    coded = np.stack([values[:, 0] * 2.55, values[:, 1] + 128, values[:, 2] + 128], axis=-1)
    ramp = bytes(range(256))
    matrix = b"".join(fixed(float(i == j)) for i in range(3) for j in range(3))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 9, 0]) + matrix + 4 * ramp
    table += coded.round().clip(0, 255).astype(np.uint8).tobytes() + 3 * ramp
    return icc(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def patches(colours: np.ndarray) -> np.ndarray:
    """Squares of 32 pixels, in two rows."""
    rows = colours.reshape(2, -1, colours.shape[-1])
    return np.kron(rows, np.ones((32, 32, 1))).round().astype(np.uint8)


def encoded(image: Image.Image, kind: str, profile: bytes) -> bytes:
    data = io.BytesIO()
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    image.save(data, kind, icc_profile=profile, **options)
    return data.getvalue()


def off_by(image: Image.Image, wanted: np.ndarray) -> int:
    """In the middle of each square: JPEG has its own edges."""
    got = np.asarray(image.convert("RGB"), dtype=int)[16::32, 16::32]
    return int(np.abs(got - wanted.astype(int)[16::32, 16::32]).max())


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_printers_profile_is_used(kind: str) -> None:
    c, m, y = 255 - COLOURS.T
    inks = patches(np.stack([m, c, y, np.zeros_like(c)], axis=-1))
    image = Image.fromarray(inks, "CMYK")
    source = open_image(encoded(image, kind, printer()))
    assert "converted to sRGB" in source.notes[0]
    assert off_by(source.image, patches(COLOURS)) <= 8  # a table of nine steps, in 8 bits
    assert source.image.info == {}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_a_grey_images_profile_is_used(kind: str) -> None:
    light = np.array([4, 16, 40, 64, 100, 128, 180, 240]).reshape(8, 1)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)  # the values are linear light
    profile = icc(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})
    image = Image.fromarray(patches(light)[..., 0], "L")
    source = open_image(encoded(image, kind, profile))
    v = light / 255
    right = 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    assert "converted to sRGB" in source.notes[0]
    assert off_by(source.image, patches(np.repeat(right, 3, axis=1))) <= 4


def real_profiles() -> list[Path]:
    folder = os.environ.get("UNZIPLORA_ICC", "")
    return sorted(Path(folder).rglob("*.ic[cm]")) if folder else []


@pytest.mark.parametrize("path", real_profiles() or [None], ids=lambda p: p and p.name)
def test_a_profile_of_printing_software_is_used(path: Path | None) -> None:
    if path is None:
        pytest.skip("UNZIPLORA_ICC names no folder of profiles")
    profile = ImageCms.getOpenProfile(str(path))
    modes = {"CMYK": "CMYK", "GRAY": "L", "RGB": "RGB"}
    mode = modes.get(profile.profile.xcolor_space.strip())
    if mode is None or not profile.profile.is_intent_supported(
        ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Direction.INPUT
    ):
        pytest.skip("it is for something else than images")
    image = Image.fromarray(patches(COLOURS), "RGB").convert(mode)
    right = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    assert right is not None
    source = open_image(encoded(image, "TIFF", path.read_bytes()))
    assert off_by(source.image, np.asarray(right)) <= 3
