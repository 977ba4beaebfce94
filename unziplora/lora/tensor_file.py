"""A .safetensors file as LoRAs come in, tensor by tensor.

The safetensors library refuses a whole file for a `__metadata__` value that is no string, and for
an fp8 tensor where numpy is asked. Tensors are what counts here: odd metadata costs a note.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput

_LONGEST_HEADER = 100_000_000  # bytes: the safetensors library's own limit
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: shape, dtype (None: not one that torch has), place and length in
    bytes."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    start: int
    length: int


class TensorFile:
    """An open file. entries: its tensors by name. metadata: as text, also what was not text.
    notes: what is odd in the header."""

    def __init__(
        self,
        file: IO[bytes],
        entries: Mapping[str, Entry],
        metadata: dict[str, str],
        notes: list[str],
    ) -> None:
        self._file = file
        self.entries, self.metadata, self.notes = entries, metadata, notes

    def read(self, name: str) -> Tensor:
        """The tensor, in memory of its own; fp8 becomes fp32, for torch computes little
        in fp8. Raises ValueError where torch has no such dtype."""
        entry = self.entries[name]
        if entry.dtype is None:
            raise ValueError(f"{name} has a dtype that torch does not have")
        if entry.length == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        self._file.seek(entry.start)
        data = bytearray(self._file.read(entry.length))
        tensor = torch.frombuffer(data, dtype=entry.dtype).view(entry.shape)
        narrow = tensor.is_floating_point() and tensor.element_size() == 1
        return tensor.to(torch.float32) if narrow else tensor


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Raises InvalidInput for what is no whole .safetensors file."""
    try:
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r}. Check the name.")
        with path.open("rb") as file:
            yield _parsed(path, file)
    except (OSError, ValueError) as error:
        raise InvalidInput(_refusal(path)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata; empty where there is none, or where this is no .safetensors file."""
    try:
        with open_tensors(path) as file:
            return file.metadata
    except InvalidInput:
        return {}


def _parsed(path: Path, file: IO[bytes]) -> TensorFile:
    """Raises ValueError for a header that lies."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= _LONGEST_HEADER:
        raise ValueError("no header")
    text = file.read(length)
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if len(text) < length or not isinstance(header, dict):
        raise ValueError("no header")
    notes: list[str] = []
    metadata = _metadata(header.pop("__metadata__", None), notes)
    entries = {name: _entry(entry, 8 + length) for name, entry in header.items()}
    size = path.stat().st_size - 8 - length
    ends = [entry.start + entry.length - 8 - length for entry in entries.values()]
    if max(ends, default=0) != size or sum(e.length for e in entries.values()) != size:
        raise ValueError("not as long as its header says")
    return TensorFile(file, entries, metadata, notes)


def _entry(said: Any, base: int) -> Entry:
    try:
        shape = tuple(int(n) for n in said["shape"])
        first, last = (int(n) for n in said["data_offsets"])
        dtype = _DTYPES.get(str(said["dtype"]))
    except (TypeError, KeyError, OverflowError) as error:
        raise ValueError("no tensor") from error
    whole = min(shape, default=0) >= 0 and 0 <= first <= last
    if dtype is not None:
        whole = whole and last - first == math.prod(shape) * dtype.itemsize
    if not whole:
        raise ValueError("a tensor of another size")
    return Entry(shape, dtype, base + first, last - first)


def _metadata(said: Any, notes: list[str]) -> dict[str, str]:
    """Values that are no text become JSON, as kohya's scripts write objects."""
    if said is None:
        return {}
    if not isinstance(said, dict):
        notes.append("Its metadata is no object and was left out.")
        return {}
    odd = [key for key, value in said.items() if not isinstance(value, str)]
    if odd:
        notes.append(f"{len(odd)} values of its metadata are no text, such as {odd[0][:40]!r}.")
    return {key: _as_text(value) for key, value in said.items() if value is not None}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refusal(path: Path) -> str:
    """What a file that could not be read is, by its first bytes."""
    start = b""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return (
            f"{path.name!r} is only a Git LFS pointer to a LoRA. "
            "Run `git lfs pull`, or download the file itself."
        )
    if start.startswith((b"<", b'{"')):
        return (
            f"{path.name!r} is an answer of a web site, not a LoRA. "
            "Log in there if it needs that, and download the file again."
        )
    return (
        f"{path.name!r} is not a whole .safetensors file. "
        "Download it again; a pickle (.pt, .ckpt) is never opened."
    )
