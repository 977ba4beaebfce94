"""The header of a .safetensors file: names, dtypes and shapes, without reading a tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unziplora.errors import InvalidInput

Shape = tuple[int, ...]

_LONGEST_HEADER = 100_000_000  # bytes: the limit of the safetensors library itself
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a .safetensors file says about itself.

    shapes, dtypes: of each tensor by its name; places: its bytes in the file, from and to;
    metadata: the file's `__metadata__`.
    """

    path: Path
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def has(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.shapes)


def read_header(path: Path) -> Header:
    """Reads a file's header, and checks that the file is as long as its header says.

    Raises InvalidInput: no such file, a pickle (never unpickled), not safetensors, truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            plausible = 2 <= length <= _LONGEST_HEADER and start[8:] == b"{"
            text = b"{" + file.read(length - 1) if plausible else b""
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}. Check the name.") from None
    except OSError as error:
        raise InvalidInput(
            f"{path.name} cannot be read: {error.strerror or error}. Choose a readable file."
        ) from None
    if not plausible:
        _refuse_foreign(path, start, size)
        raise InvalidInput(
            f"{path.name} is not a .safetensors file, or its start is damaged. "
            "Choose a checkpoint in the .safetensors format."
        )
    if len(text) < length:
        raise _truncated(path, size, 8 + length)
    return _parse(path, text, size - 8 - length)


def _parse(path: Path, text: bytes, data_size: int) -> Header:
    damaged = InvalidInput(
        f"The header of {path.name} is damaged. Download the file again, or choose another."
    )
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    places: dict[str, tuple[int, int]] = {}
    begin, end = 8 + len(text), 0
    try:
        entries = json.loads(text)
        said = (entries.pop("__metadata__", None) or {}).items()
        metadata = {str(key): str(value) for key, value in said}
        for name, entry in entries.items():
            shape = tuple(int(n) for n in entry["shape"])
            first, last = (int(n) for n in entry["data_offsets"])
            dtype = str(entry["dtype"])
            bits = _BITS.get(dtype)
            if not 0 <= first <= last or (
                bits is not None and (last - first) * 8 != math.prod(shape) * bits
            ):
                raise damaged
            shapes[name], dtypes[name] = shape, dtype
            places[name] = begin + first, begin + last
            end = max(end, last)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise damaged from None
    if end > data_size:
        raise _truncated(path, data_size, end)
    if end < data_size:
        raise damaged
    return Header(path, shapes, dtypes, metadata, places)


def _truncated(path: Path, there: int, expected: int) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is truncated: {there / 1e9:.3f} of {expected / 1e9:.3f} GB are there. "
        "Download or copy it again."
    )


def _refuse_foreign(path: Path, start: bytes, size: int) -> None:
    """What people have under the name of a checkpoint that is none, by the file's first bytes."""
    if size == 0:
        raise InvalidInput(f"{path.name} is empty. Download or copy it again.")
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise _pickle(path)
    if start[:4] == b"GGUF":
        raise InvalidInput(
            f"{path.name} is a GGUF file, whose weights are quantised. "
            "Choose the checkpoint's .safetensors file in fp16, bf16 or fp32."
        )
    if start[:8] == b"version ":
        raise InvalidInput(
            f"{path.name} is only a Git LFS pointer to a file. "
            "Run `git lfs pull`, or download the file itself."
        )
    if start.lstrip()[:1] == b"<":
        raise InvalidInput(
            f"{path.name} is a web page, not a checkpoint: a download went wrong. "
            "Download the file again."
        )
    if path.suffix.lower() in _PICKLES:
        raise _pickle(path)


def _pickle(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is a pickle, which can run code when it is opened. "
        "Convert it to .safetensors, or choose a .safetensors checkpoint."
    )
