"""Colours as a screen shows them: any profile, or what a PNG says in its place, to 8-bit sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_WHITE_D65 = (0.3127, 0.3290)
_PRIMARIES = {  # (x, y) of red, green, blue; numbers of cICP (ITU-T H.273, table 2)
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),  # BT.709, sRGB
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # DCI-P3 (its white is not D65)
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
_INTEROPERABILITY = 0xA005  # EXIF
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF
_PQ_WHITE = 203 / 10_000  # of an HDR image, what a page's white is (ITU-R BT.2408)


def to_srgb(
    image: Image.Image, shown: str, profile: bytes | None, coding: bytes | None
) -> tuple[Image.Image, tuple[str, ...]]:
    """RGB in 8 bits, and what was done. image: in any mode; its alpha is not looked at."""
    image = _eight_bits(image)
    if image.mode == "LAB":
        return _converted(image, ImageCms.createProfile("LAB")), _note(shown, "CIE Lab")
    name, source = _stated(image, profile, coding)
    if source is None:
        return image.convert("RGB"), _without_profile(image.mode, shown, name)
    plain = _plain(image)
    mode = _mode_read_by(source, plain.mode)
    if mode is None:
        note = f"{shown} has a colour profile for another kind of image; it was left out."
        return plain.convert("RGB"), (note,)
    if mode == "RGB" and _same_as_srgb(source):
        return plain.convert("RGB"), ()
    return _converted(plain.convert(mode), source), _note(shown, name or "its own colour profile")


def _without_profile(mode: str, shown: str, name: str | None) -> tuple[str, ...]:
    """A note where the colours may not be as the image means them."""
    if name is not None:
        return (f"{shown}: {name}; its colours are taken as sRGB.",)
    if mode == "CMYK":
        return (f"{shown} is in CMYK without a colour profile: its colours are approximate.",)
    return ()


def _mode_read_by(source: Any, mode: str) -> str | None:
    """The mode in which a profile reads an image of mode RGB, L or CMYK; None: it is for others.
    A grey image may have a profile of RGB."""
    read = _SPACES.get(source.profile.xcolor_space)
    return read if read == mode or (read == "RGB" and mode == "L") else None


def _note(shown: str, name: str) -> tuple[str, ...]:
    return (f"{shown} is in {name}: its colours were converted to sRGB.",)


def _stated(
    image: Image.Image, profile: bytes | None, coding: bytes | None
) -> tuple[str | None, Any]:
    """What an image says of its colours, and the profile of that; the first that a browser would
    take: cICP, ICC, sRGB, gAMA with cHRM, a camera's mark. A name alone: the profile is damaged."""
    if coding is not None and (found := _coded(coding)) is not None:
        return found
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return _name_of(source), source
        except (OSError, ImageCms.PyCMSError):
            return "its colour profile is damaged", None
    if "srgb" in image.info or image.mode not in ("RGB", "RGBA", "P", "L", "LA"):
        return None, None
    if (gamma := image.info.get("gamma")) and 0.01 < gamma < 10:
        return _from_gamma(gamma, image.info.get("chromaticity"))
    if _marked_adobe(image):
        return "Adobe RGB", _matrix_profile(_ADOBE_RGB, _WHITE_D65, lambda v: v ** (563 / 256))
    return None, None


def _from_gamma(gamma: float, chromaticity: Any) -> tuple[str | None, Any]:
    """Of a PNG's gAMA and cHRM. 1/2.2 is what programs write for sRGB."""
    white: Sequence[float] = _WHITE_D65
    primaries: Sequence[Sequence[float]] = _PRIMARIES[1]
    if chromaticity is not None and len(chromaticity) == 8:
        pairs = [tuple(chromaticity[i : i + 2]) for i in range(0, 8, 2)]
        white, primaries = pairs[0], tuple(pairs[1:])
    usual = abs(gamma - 1 / 2.2) < 0.005
    curve = _srgb_curve if usual else (lambda v: v ** (1 / gamma))
    try:
        return "the colours that its gAMA chunk states", _matrix_profile(primaries, white, curve)
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError, struct.error):
        return None, None


def _coded(coding: bytes) -> tuple[str, Any] | None:
    """Of a PNG's cICP chunk or its like; None where it says nothing that is known."""
    if len(coding) != 4 or coding[0] not in _PRIMARIES or coding[2] != 0:
        return None
    curves: dict[int, Callable[[Any], Any]] = {
        1: _bt709_curve, 6: _bt709_curve, 14: _bt709_curve, 15: _bt709_curve,
        4: lambda v: v**2.2, 5: lambda v: v**2.8, 8: lambda v: v, 13: _srgb_curve,
        16: _pq_curve, 18: _hlg_curve,
    }  # fmt: skip
    curve = curves.get(coding[1])
    if curve is None:
        return None
    name = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}[coding[0]]
    hdr = {16: " (HDR, PQ)", 18: " (HDR, HLG)"}.get(coding[1], "")
    white = (0.314, 0.351) if coding[0] == 11 else _WHITE_D65
    return name + hdr, _matrix_profile(_PRIMARIES[coding[0]], white, curve)


def _marked_adobe(image: Image.Image) -> bool:
    """By a camera that embeds no profile: DCF's interoperability index R03."""
    try:
        return image.getexif().get_ifd(_INTEROPERABILITY).get(1) in ("R03", b"R03\0")
    except Exception:  # the mark is damaged, the image is not
        return False


def _name_of(source: Any) -> str:
    name = ImageCms.getProfileDescription(source).strip()
    return name if name and name.isprintable() and len(name) < 60 else "its own colour profile"


def _plain(image: Image.Image) -> Image.Image:
    """RGB, L or CMYK."""
    if image.mode in ("RGB", "L", "CMYK"):
        return image
    return image.convert("L" if image.mode in ("LA", "La", "1") else "RGB")


def _converted(image: Image.Image, source: Any) -> Image.Image:
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if image.mode == "L":  # its shortcut for grey is up to 9 levels off in the dark
        flags |= ImageCms.Flags.NOOPTIMIZE
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        result = ImageCms.profileToProfile(
            image, source, _SRGB, intent, outputMode="RGB", flags=flags
        )
    except ImageCms.PyCMSError:  # a profile that lacks this direction
        return image.convert("RGB") if image.mode != "LAB" else image.getchannel(0).convert("RGB")
    assert result is not None
    return result


def _same_as_srgb(source: Any) -> bool:
    """Whether a profile changes nothing that can be seen: no more than two levels."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    patches = Image.fromarray(grid)
    changed = np.asarray(_converted(patches, source), dtype=int)
    return bool(np.abs(changed - grid).max() <= 2)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit or float image scaled, where Pillow's own conversion would clip it."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    scaled = (values / _white_of(image.mode, values) * 255).round().clip(0, 255).astype(np.uint8)
    # of a TIFF in which 0 is white, Pillow turns 8 bits only
    if (getattr(image, "tag_v2", None) or {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = 255 - scaled
    result = Image.fromarray(scaled)
    result.info = dict(image.info)  # what a PNG states of its colours
    return result


def _white_of(mode: str, values: Any) -> float:
    """What stands for white; modes I and F say nothing of their range."""
    if mode == "F":
        lit = values.ravel()[:: max(1, values.size // 1_000_000)]
        lit = lit[lit > 0]
        # highlights may lie above 1
        unit = lit.size == 0 or float(np.median(lit)) <= 1
        return 1.0 if unit else 255.0 if values.max() <= 255 else 65535.0
    return 255.0 if mode == "I" and values.max() <= 255 else 65535.0


def _srgb_curve(v: Any) -> Any:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _bt709_curve(v: Any) -> Any:
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def _pq_curve(v: Any) -> Any:
    """SMPTE ST 2084, with a page's white at 1; what is brighter is cut."""
    p = np.asarray(v) ** (1 / 78.84375)
    light = (np.maximum(p - 0.8359375, 0) / (18.8515625 - 18.6875 * p)) ** (1 / 0.1593017578125)
    return np.minimum(light / _PQ_WHITE, 1)


def _hlg_curve(v: Any) -> Any:
    """ARIB STD-B67, with its reference white (0.75 of the signal) at 1."""
    low, high = v**2 / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.minimum(np.where(v <= 0.5, low, high) / 0.26496256, 1)


def _matrix_profile(
    primaries: Sequence[Sequence[float]], white: Sequence[float], curve: Callable[[Any], Any]
) -> Any:
    """An RGB profile (ICC.1:2001) of primaries and white as (x, y), and the curve to linear light.

    Raises ValueError where they span no colours.
    """
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white_xyz = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    colorants = _adapted(white_xyz) @ (xyz * np.linalg.solve(xyz, white_xyz))
    if not np.isfinite(colorants).all() or np.abs(colorants).max() > 100:
        raise ValueError("these primaries span no colours")
    table = np.asarray(curve(np.linspace(0, 1, 1024)))
    samples = (table.clip(0, 1) * 65535).round().astype(">u2").tobytes()
    trc = b"curv\0\0\0\0" + struct.pack(">I", 1024) + samples
    tags = {b"wtpt": _xyz_tag(_D50), b"rTRC": trc, b"gTRC": trc, b"bTRC": trc}
    for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ")):
        tags[name] = _xyz_tag(colorants[:, i])
    described = b"stated colours\0"
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(described)) + described + bytes(78)
    return ImageCms.ImageCmsProfile(io.BytesIO(_written(tags)))


_D50 = np.array([0.9642, 1.0, 0.8249])  # the profile connection space's white
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _adapted(white: Any) -> Any:
    """From a white to D50."""
    return np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD


def _xyz_tag(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def _written(tags: dict[bytes, bytes]) -> bytes:
    place, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        index += name + struct.pack(">2I", place + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s", place + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(float(v) * 65536) for v in _D50))
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + index + body
