"""A LoRA's .safetensors file, tensor by tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.files import check_regular_file
from unziplora.safetensors_file import SafetensorsHeader, read_header, read_tensor


class TensorFile:
    """An open file. entries, metadata, notes: as its header has them."""

    def __init__(self, file: IO[bytes], header: SafetensorsHeader) -> None:
        self._file = file
        self.entries, self.metadata, self.notes = header.entries, header.metadata, header.notes

    def read(self, name: str) -> Tensor:
        """The tensor, in memory of its own; fp8 becomes fp32, for torch computes little in fp8.
        Raises ValueError where torch has no such dtype."""
        tensor = read_tensor(self._file, self.entries[name])
        narrow = tensor.is_floating_point() and tensor.element_size() == 1
        return tensor.to(torch.float32) if narrow else tensor


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Raises InvalidInput for what is no whole .safetensors file."""
    check_regular_file(path)
    try:
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r}. Check the name.")
        with path.open("rb") as file:
            yield TensorFile(file, read_header(file))
    except (OSError, ValueError) as error:
        raise InvalidInput(_refusal(path)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata; empty where there is none, or where this is no .safetensors file."""
    try:
        with open_tensors(path) as file:
            return dict(file.metadata)
    except InvalidInput:
        return {}


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
