"""The colours that an AVIF states beside its pixels: Pillow gives its ICC profile only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST_BOXES = 1000  # of one level; encoders write about ten
_HOLDERS = ("meta", "iprp", "ipco")  # HEIF (ISO/IEC 23008-12): where properties of items are


def stated_coding(data: bytes) -> bytes | None:
    """The first `nclx` colour property as a PNG's cICP chunk would say it: primaries and transfer
    (ITU-T H.273), 0, 1. The YUV matrix is the decoder's matter. None where there is none."""
    for kind, box in _boxes(_properties(data)):
        if kind == "colr" and box[:4] == b"nclx" and len(box) >= 10:
            primaries, transfer = struct.unpack_from(">2H", box, 4)
            return bytes([primaries, transfer, 0, 1]) if max(primaries, transfer) < 256 else None
    return None


def _properties(data: bytes) -> bytes:
    """The content of the box that holds them; nothing where there is none."""
    for kind in _HOLDERS:
        data = next((box for found, box in _boxes(data) if found == kind), b"")
        if kind == "meta":
            data = data[4:]  # its version and flags
    return data


def _boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and content of each box (ISO/IEC 14496-12) up to the first that is not whole."""
    place = 0
    for _ in range(_MOST_BOXES):
        if place + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, place)
        start, end = place + 8, place + length
        if length == 1 and place + 16 <= len(data):  # longer than 4 GiB, or written so
            start, end = place + 16, place + struct.unpack_from(">Q", data, place + 8)[0]
        elif length == 0:  # up to the end
            end = len(data)
        if end > len(data) or end < start:
            return
        yield kind.decode("latin-1"), data[start:end]
        place = end
