"""Reading a checkpoint's parts: files into models made on torch's meta device, strictly."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unziplora.checkpoints.convert import TEXT, Importer, Named
from unziplora.checkpoints.header import read_header
from unziplora.errors import InvalidInput
from unziplora.files import check_regular_file
from unziplora.safetensors_file import read_tensor

Device = torch.device | str

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


def fill(model: nn.Module, tensors: Iterable[Named], what: str, path: Path, device: Device,
         dtype: torch.dtype) -> nn.Module:  # fmt: skip
    """Gives a model on the meta device its tensors, in eval mode and frozen.

    Raises InvalidInput where a tensor is missing, left over, or of another shape than the model's.
    """
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    prefixed = any(name.startswith(TEXT) for name in expected)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if name.startswith(TEXT) and not prefixed:
            name = name.removeprefix(TEXT)
        if name not in expected:
            raise unexpected(path, what, name)
        if tensor.shape != expected[name]:
            raise InvalidInput(
                f"The {what} of {path.name} is damaged or of an unknown kind: {name} is "
                f"{tuple(tensor.shape)}, not {tuple(expected[name])}. Choose another checkpoint."
            )
        state[name] = tensor.to(device=device, dtype=dtype, copy=True).contiguous()
    if missing := expected.keys() - state.keys():
        raise InvalidInput(
            f"The {what} of {path.name} is damaged or of an unknown kind: {len(missing)} tensors "
            f"are missing, as {min(missing)}. Choose another checkpoint."
        )
    model.load_state_dict(state, strict=True, assign=True)
    for module in model.modules():  # CLIP's buffer that no file needs to keep
        if isinstance(ids := getattr(module, "position_ids", None), Tensor):
            module.position_ids = torch.arange(ids.shape[-1], device=device).expand(1, -1)
    return model.eval().requires_grad_(False)


def weights_in(folder: Path, what: str) -> list[Path]:
    """The .safetensors files of a diffusers part: the full-precision ones, else fp16's."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if ".fp16" not in file.name and ".non_ema" not in file.name]
    chosen = plain or [file for file in files if ".non_ema" not in file.name]
    if chosen:
        _check_shards(chosen, what)
        return chosen
    if [*folder.glob("*.bin")]:
        raise InvalidInput(
            f"The {what} in {folder.parent.name} is a pickle, which can run code when it is opened."
            " Choose a model whose weights are .safetensors files."
        )
    raise InvalidInput(f"There are no weights of the {what} in {folder}. Choose a complete model.")


def _check_shards(files: list[Path], what: str) -> None:
    """Raises InvalidInput where one of the files that weights were divided into is not there."""
    for file in files:
        if (match := _SHARD.search(file.name)) is None:
            continue
        for number in range(1, int(match[2]) + 1):
            name = _SHARD.sub(f"-{number:05}-of-{match[2]}", file.name)
            if not (file.parent / name).is_file():
                raise InvalidInput(
                    f"The {what} is in {int(match[2])} files, and {name} is not in {file.parent}. "
                    "Download that file, too."
                )


def read_json(path: Path) -> dict[str, Any]:
    """A config file; InvalidInput where it is missing or damaged."""
    check_regular_file(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(
            f"There is no {path.name} in {path.parent}. Choose a complete model."
        ) from None
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} is damaged. Download the model again.")
    return content


def read(path: Path, names: Iterable[str], prefix: str, what: str,
          convert: Importer) -> Iterator[Named]:  # fmt: skip
    """Each tensor of a part under its new name, read when it is asked for."""
    with _opened(path) as tensor:
        for name in names:
            try:
                yield from convert(name, tensor(prefix + name))
            except KeyError:
                raise unexpected(path, what, name) from None


def read_folder(folder: Path, what: str) -> Iterator[Named]:
    for path in weights_in(folder, what):
        header = read_header(path)
        with _opened(path) as tensor:
            for name in header.entries:
                yield name, tensor(name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Callable[[str], Tensor]]:
    """A file's tensors by name. The library refuses a whole file for a single value in its header
    that is no text; then they are read from where the header says they are."""
    with contextlib.ExitStack() as stack:
        try:
            library = stack.enter_context(safe_open(str(path), framework="pt"))
        except SafetensorError:
            entries = read_header(path).entries
            file = stack.enter_context(path.open("rb"))
            yield lambda name: read_tensor(file, entries[name])
        else:
            yield library.get_tensor


def missing(path: Path, what: str, error: KeyError) -> InvalidInput:
    return InvalidInput(
        f"The {what} of {path.name} is damaged or of an unknown kind: {error.args[0]} is missing. "
        "Choose another checkpoint."
    )


def unexpected(path: Path, what: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"The {what} of {path.name} is damaged or of an unknown kind: it has {name}, which SDXL "
        "has not. Choose another checkpoint."
    )
