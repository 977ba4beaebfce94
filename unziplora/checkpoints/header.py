"""The header of a checkpoint: names, dtypes and shapes, without reading a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.files import check_regular_file
from unziplora.safetensors_file import NoHeader, TensorEntry, TruncatedFile
from unziplora.safetensors_file import read_header as read_file_header

Shape = tuple[int, ...]

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says about itself. entries: its tensors by name; metadata: the file's
    `__metadata__`."""

    path: Path
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def has(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.entries)


def read_header(path: Path) -> CheckpointHeader:
    """Reads a file's header, and checks that the file is as long as its header says.

    Raises InvalidInput: no such file, a pickle (never unpickled), not safetensors, truncated.
    """
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            header = read_file_header(file)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}. Check the name.") from None
    except OSError as error:
        raise InvalidInput(
            f"{path.name} cannot be read: {error.strerror or error}. Choose a readable file."
        ) from None
    except NoHeader:
        _refuse_foreign(path)
        raise InvalidInput(
            f"{path.name} is not a .safetensors file, or its start is damaged. "
            "Choose a checkpoint in the .safetensors format."
        ) from None
    except TruncatedFile as error:
        raise InvalidInput(
            f"{path.name} is truncated: {error.actual / 1e9:.3f} of {error.expected / 1e9:.3f} GB "
            "are there. Download or copy it again."
        ) from None
    except ValueError:
        raise InvalidInput(
            f"The header of {path.name} is damaged. Download the file again, or choose another."
        ) from None
    return CheckpointHeader(path, header.entries, header.metadata)


def _refuse_foreign(path: Path) -> None:
    """What people have under the name of a checkpoint that is none, by the file's first bytes."""
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
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
