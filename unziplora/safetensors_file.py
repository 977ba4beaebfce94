"""A .safetensors file: its header, without reading a tensor, and its tensors one by one.

8 bytes with the header's length, the header as JSON, the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format"). The safetensors library refuses a whole file
for a `__metadata__` value that is no string, and for an fp8 tensor where numpy is used. Tensors are
what counts here: odd metadata costs a note.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import torch
from torch import Tensor

_MOST_SIDES = 16  # of a tensor; a convolution in three dimensions has 5
_LONGEST_SIDE = 2**40
_MOST_NUMBERS = 2**60  # of a tensor: torch counts in signed 64 bits
_MOST_CONTAINERS = 1_000_000  # a tensor has 3; 10 MB of "[]," would take 250 MB of memory
_LONGEST_HEADER = 100_000_000  # bytes: the limit of the safetensors library itself
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class NoHeader(ValueError):
    """The file does not begin as a .safetensors file does."""


class DamagedHeader(ValueError):
    """The header contradicts itself, or the file."""


class TruncatedFile(ValueError):
    """The file has `actual` of the `expected` bytes that its header speaks of."""

    def __init__(self, actual: int, expected: int) -> None:
        super().__init__(f"{actual} of {expected} bytes")
        self.actual, self.expected = actual, expected


@dataclass(frozen=True)
class TensorEntry:
    """One tensor. dtype: as the file names it ("BF16"); start, length: its place in the file, in
    bytes."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    length: int

    @property
    def readable(self) -> bool:
        """Whether torch has its dtype."""
        return self.dtype in _DTYPES


@dataclass(frozen=True)
class SafetensorsHeader:
    """entries: the tensors by name. metadata: `__metadata__` as text, also what was not text.
    notes: what is odd in the metadata, a sentence each."""

    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_header(file: IO[bytes]) -> SafetensorsHeader:
    """Reads the header of an open file, and checks that the file is as long as the header says.

    Raises NoHeader, DamagedHeader, TruncatedFile (all of them ValueErrors), OSError.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= _LONGEST_HEADER or start[8:] != b"{":
        raise NoHeader("it does not begin with a header")
    text = b"{" + file.read(length - 1)
    if len(text) < length:
        raise TruncatedFile(size, 8 + length)
    if text.count(b"[") + text.count(b"{") > _MOST_CONTAINERS:
        raise DamagedHeader("its header has more lists than tensors need")
    try:
        header = json.loads(text)
        metadata, notes = _metadata(header.pop("__metadata__", None))
        entries = {name: _entry(entry, 8 + length) for name, entry in header.items()}
    except DamagedHeader:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DamagedHeader(f"its header cannot be read: {error}") from error
    _check_size(entries, 8 + length, size)
    return SafetensorsHeader(entries, metadata, tuple(notes))


def read_tensor(file: IO[bytes], entry: TensorEntry) -> Tensor:
    """One tensor of an open file, in memory of its own. Raises ValueError where torch does not have
    its dtype."""
    if not entry.readable:
        raise ValueError(f"torch has no dtype {entry.dtype}")
    dtype = _DTYPES[entry.dtype]
    if entry.length == 0:
        return torch.empty(entry.shape, dtype=dtype)
    file.seek(entry.start)
    data = bytearray(file.read(entry.length))
    return torch.frombuffer(data, dtype=dtype).view(entry.shape)


def write_tensors(
    file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """A whole .safetensors file, one tensor after another: of tensors on a GPU, one at a time is in
    the computer's memory. The library's own writer first makes bytes of all of them.

    Raises OSError, and ValueError for a dtype that the format does not have.
    """
    # the library's order: what has the widest numbers first, so that all of them are aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _name_of(tensor.dtype), "shape": list(tensor.shape),
                        "data_offsets": [start, end]}  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        whole = tensors[name].detach().cpu().contiguous()
        if whole.numel():
            file.write(whole.view(-1).view(torch.uint8).numpy().data)


def _name_of(dtype: torch.dtype) -> str:
    for name, known in _DTYPES.items():
        if known == dtype:
            return name
    raise ValueError(f"the format has no dtype {dtype}")


def _entry(entry: Any, base: int) -> TensorEntry:
    shape = _shape(entry["shape"])
    first, last = (int(n) for n in entry["data_offsets"])
    dtype = str(entry["dtype"])
    consistent = 0 <= first <= last
    if dtype in _BITS:
        consistent = consistent and (last - first) * 8 == math.prod(shape) * _BITS[dtype]
    if not consistent:
        raise DamagedHeader("a tensor's shape and place do not agree")
    return TensorEntry(shape, dtype, base + first, last - first)


def _shape(sides: Any) -> tuple[int, ...]:
    """What torch can have, decided without a long product: a header of 400 kB may have a shape of
    50,000 sides, whose product takes seconds. Sides of 0 count as 1, since torch's strides do."""
    shape = tuple(int(n) for n in sides) if len(sides) <= _MOST_SIDES else (-1,)
    fits = all(0 <= n <= _LONGEST_SIDE for n in shape)
    if not fits or math.prod(max(n, 1) for n in shape) > _MOST_NUMBERS:
        raise DamagedHeader("a tensor's shape is none that a tensor can have")
    return shape


def _check_size(entries: Mapping[str, TensorEntry], base: int, size: int) -> None:
    """Tensors fill the file, and none lies in another."""
    end = max((entry.start + entry.length for entry in entries.values()), default=base)
    if end > size:
        raise TruncatedFile(size, end)
    if end < size or sum(entry.length for entry in entries.values()) != size - base:
        raise DamagedHeader("its tensors do not fill the file")


def _metadata(metadata: Any) -> tuple[dict[str, str], list[str]]:
    """Values that are no text become JSON, as kohya's scripts write objects."""
    if metadata is None:
        return {}, []
    if not isinstance(metadata, dict):
        return {}, ["Its metadata is no object and was left out."]
    odd = [key for key, value in metadata.items() if not isinstance(value, str)]
    notes = []
    if odd:
        notes.append(f"{len(odd)} values of its metadata are no text, such as {odd[0][:40]!r}.")
    return {key: _as_text(value) for key, value in metadata.items() if value is not None}, notes


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
