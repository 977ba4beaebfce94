"""From a file to Pillow: what it is, what of it is read, and which damage is harmless."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError, features

from unziplora.errors import InvalidInput
from unziplora.files import check_regular_file
from unziplora.images.avif_coding import stated_coding

MOST_PIXELS = 100_000_000  # refused before decoding: a bomb, or a scan to scale down first
MOST_BYTES = 500_000_000
SMALLEST_SIDE = 64  # pixels; below it there is nothing to learn from
# Not every format that Pillow knows: PostScript, for one, would start another program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MOST_PROFILE = 16_000_000  # bytes of an ICC profile; the largest printing profiles have 3 million

_PNG = b"\x89PNG\r\n\x1a\n"
# Of one to four components, with their length: the bytes of a video behind a phone's image have the
# mark alone by chance, hundreds of times.
_START_OF_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MOST_SCANS = 500  # of a JPEG and the images in it; encoders write about 10 for each
_END_OF_JPEG = b"\xff\xd9"
OWN_TEXT = "unziplora: "  # how the keys of texts begin that open_file keeps in a PNG's info
# Of a PNG's other chunks nothing is needed to show it; some hold megabytes of compressed text.
_PNG_KEPT = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"eXIf", b"acTL", b"fcTL", b"fdAT"}

# What else a file may be, by its first bytes.
_OTHERS = (
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC photo"),
    (rb"....ftyp(avif|avis)", "an AVIF image"),
    (rb"....ftypcrx|II\*\0....CR|IIRO|IIU\0|FUJIFILMCCD-RAW", "a camera's raw file"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (rb"8BPS", "a Photoshop document"),
    (rb"gimp xcf", "a GIMP document"),
    (rb"%PDF", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document"),
    (rb"v/1\x01", "an OpenEXR image"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg", "an SVG drawing"),
    (rb"\s*<(!doctype html|html)", "a web page, not an image: a download went wrong"),
    (rb"version https://git-lfs", "only a Git LFS pointer to a file"),
)


@dataclass(frozen=True)
class Opened:
    """image: decoded, as it is stored. profile: its ICC profile; coding: a PNG's cICP chunk, which
    goes before it, or what an AVIF without a profile states instead. notes: on damage that did no
    harm."""

    image: Image.Image
    profile: bytes | None = None
    coding: bytes | None = None
    animated: bool = False
    notes: tuple[str, ...] = ()


def readable_formats() -> tuple[str, ...]:
    """Of Pillow as it is installed here."""
    return (*FORMATS, "AVIF") if features.check("avif") else FORMATS


def open_file(source: str | Path | bytes) -> Opened:
    """Reads and decodes an image. Raises InvalidInput for what is no image, is damaged, too small,
    or too large to be decoded."""
    shown = "The image" if isinstance(source, bytes) else Path(source).name
    data = source if isinstance(source, bytes) else _read(Path(source))
    png = _read_png(data) if data.startswith(_PNG) else None
    with _errors_explained(shown, data), _own_rules():
        image, damage = _decoded(shown, png.data if png else data)
        animated = _is_animated(image)
    if png is None:
        profile = image.info.get("icc_profile") or None
        coding = stated_coding(data) if image.format == "AVIF" and profile is None else None
    else:
        profile, coding, damage = png.profile, png.coding, damage or png.damage
    notes = (f"{shown} is slightly damaged ({damage}); its image is whole.",) if damage else ()
    return Opened(image, profile, coding, animated, notes)


@contextlib.contextmanager
def _errors_explained(shown: str, data: bytes) -> Iterator[None]:
    """Raises InvalidInput for whatever a decoder raises."""
    try:
        yield
    except InvalidInput:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(f"{shown} has") from error
    except UnidentifiedImageError as error:
        raise InvalidInput(_unreadable(shown, data)) from error
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise InvalidInput(
            f"{shown} is damaged or cut off. Open it in an image program and save it again."
        ) from error


def _is_animated(image: Image.Image) -> bool:
    # a phone's JPEG may hold a second image (MPO), which is no animation;
    # is_animated, because n_frames reads a GIF's every frame
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _decoded(shown: str, data: bytes) -> tuple[Image.Image, str | None]:
    """The image, and what was missing of its file that did no harm."""
    image = Image.open(io.BytesIO(data), formats=readable_formats())
    _check_size(shown, image.size)
    # each scan may cost a pass over the whole image for 31 bytes of the file
    if image.format in ("JPEG", "MPO") and len(_START_OF_SCAN.findall(data)) > _MOST_SCANS:
        raise InvalidInput(
            f"{shown} has far more passes than a progressive JPEG needs. Open it in an image "
            "program and save it again."
        )
    try:
        image.load()
    except OSError:
        if image.format != "JPEG" or data.rstrip(b"\0").endswith(_END_OF_JPEG):
            raise
        return _without_end(data), "the mark of its end is missing"
    return image, None


def _without_end(data: bytes) -> Image.Image:
    """A JPEG without its last two bytes. Raises OSError where more is missing.

    A decoder that has all of the image ignores what stands between it and the mark of its end; one
    that has not takes it for the image.
    """
    image, other = (
        Image.open(io.BytesIO(data + more + _END_OF_JPEG), formats=("JPEG",))
        for more in (b"", bytes(range(1, 250)))
    )
    if ImageChops.difference(image.convert("RGB"), other.convert("RGB")).getbbox() is not None:
        raise OSError("part of the image is missing")
    return image


@dataclass(frozen=True)
class _Png:
    """data: with nothing but what shows the image."""

    data: bytes
    profile: bytes | None
    coding: bytes | None
    damage: str | None


def _read_png(data: bytes) -> _Png:
    """Leaves out others' text and chunks that do not show; a wrong checksum there does no harm."""
    kept, place = [_PNG], len(_PNG)
    profile = coding = damage = None
    ended = False
    while place + 8 <= len(data) and not ended:
        (length,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        chunk = data[place : place + 12 + length]
        place += 12 + length
        needed = kind[:1].isupper()
        if needed:  # Pillow checks these
            kept.append(chunk)
            ended = kind == b"IEND"
        elif len(chunk) < 12 + length or chunk[-4:] != struct.pack(">I", _crc(chunk)):
            damage = "a wrong checksum beside the image"
        elif kind == b"iCCP":
            profile = _profile(content)
        elif kind == b"cICP":
            coding = content
        elif kind in _PNG_KEPT or _is_ours(kind, content):
            kept.append(chunk)
    if not ended:
        kept.append(struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
        damage = damage or "the mark of its end is missing"
    return _Png(b"".join(kept), profile, coding, damage)


def _is_ours(kind: bytes, content: bytes) -> bool:
    return kind == b"tEXt" and content.startswith(OWN_TEXT.encode())


def _crc(chunk: bytes) -> int:
    return zlib.crc32(chunk[4:-4])


def _profile(content: bytes) -> bytes | None:
    """Of an iCCP chunk: a name, a zero, the method, the profile; None where it is damaged."""
    try:
        inflate = zlib.decompressobj()
        return inflate.decompress(content[content.index(b"\0") + 2 :], _MOST_PROFILE) or None
    except (ValueError, zlib.error):
        return None


def _unreadable(shown: str, data: bytes) -> str:
    """What a file is instead of an image that can be read."""
    for pattern, what in _OTHERS:
        if re.match(pattern, data[:1000], re.DOTALL | re.IGNORECASE):
            return f"{shown} is {what}. Choose a PNG, JPEG or WebP file, or save it as one."
    return f"{shown} is not an image that can be read. Choose a PNG, JPEG or WebP file."


_rules = threading.RLock()


@contextlib.contextmanager
def _own_rules() -> Iterator[None]:
    """Pillow with our limits, not those that a host has set for all of its process."""
    with _rules:
        earlier = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large images and odd EXIF: ours say it better
                yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = earlier


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InvalidInput(f"{path.name} is a folder, not an image. Choose one image.")
        check_regular_file(path)
        size = path.stat().st_size
        if size <= MOST_BYTES:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            size = max(size, len(data))  # of some files the system says too little
        if size > MOST_BYTES:
            raise InvalidInput(
                f"{path.name} has {size / 1e6:.0f} MB, too much for an image. "
                "Scale it down in an image program first."
            )
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidInput(f"There is no image {str(path)!r}. Check the name.") from error
    except OSError as error:
        raise InvalidInput(
            f"The image {path.name} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if not data:
        raise InvalidInput(f"{path.name} is empty. Choose another image.")
    return data


def _check_size(shown: str, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) < SMALLEST_SIDE:
        raise InvalidInput(
            f"{shown} has {width} x {height} pixels, too few to learn from. "
            f"Choose one with at least {SMALLEST_SIDE} on each side."
        )
    if width * height > MOST_PIXELS:
        raise _too_large(f"{shown} has {width} x {height} pixels:")


def _too_large(what: str) -> InvalidInput:
    return InvalidInput(
        f"{what} more than {MOST_PIXELS / 1e6:.0f} million pixels. "
        "Scale it down in an image program first."
    )
