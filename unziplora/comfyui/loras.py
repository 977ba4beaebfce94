"""ComfyUI's LORA_MODEL: tensors by name, as its own nodes take and give them; ours also know what
the file's header says."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from unziplora import files
from unziplora.errors import InvalidInput
from unziplora.lora.merge import merge as merge_files
from unziplora.lora.metadata import LoraInfo, info_of, renamed
from unziplora.lora.pair import pair_files
from unziplora.lora.read import read_lora
from unziplora.lora.tensor_file import read_metadata
from unziplora.method.prompts import BranchName
from unziplora.training.settings import LONGEST_FILE_NAME

Weighted = tuple[Mapping[str, Tensor], float]


class LoraTensors(dict[str, Tensor]):
    """Tensors by name. metadata: the header of the file that they are from; name: its stem."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str):
        super().__init__(tensors)
        self.metadata, self.name = dict(metadata), name

    @property
    def info(self) -> LoraInfo:
        return info_of(self.metadata)


def read(path: Path) -> LoraTensors:
    """A LoRA's file. Raises InvalidInput for what is none."""
    read_lora(path)
    return LoraTensors(load_file(path), read_metadata(path), path.stem)


def with_header(lora: Mapping[str, Tensor], name: str) -> LoraTensors:
    """A LORA_MODEL of any node. name: of one that has none."""
    return lora if isinstance(lora, LoraTensors) else LoraTensors(lora, {}, name)


def write(lora: LoraTensors, path: Path, *, new: bool = False) -> None:
    """Atomically, and read back. new: a file that is there by then is kept. Raises WriteError, and
    InvalidInput for what is no LoRA, and where a new file's name is taken."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in lora.items()}
    metadata = {key: files.encodable(text) for key, text in lora.metadata.items()}
    metadata = {"format": "pt", **metadata}
    with files.writing(path, new=new) as temporary:
        temporary.write_bytes(save(plain, metadata))
        read_lora(temporary)


def merge_to(path: Path, content: Weighted, style: Weighted, how: str) -> LoraTensors:
    """One file of two LoRAs with their weights, and what is in it. how: of MERGE_METHODS. Raises
    InvalidInput as lora/merge.py's."""
    with tempfile.TemporaryDirectory(prefix="unziplora-") as temporary:
        parts = []
        for role, (lora, weight) in {"content": content, "style": style}.items():
            own = Path(temporary) / role  # two may have the same name
            own.mkdir()
            named = with_header(lora, role)
            write(named, own / f"{named.name}.safetensors")
            parts.append((own / f"{named.name}.safetensors", weight))
        merge_files(path, parts, how=how)
    return read(path)


def merge(content: Weighted, style: Weighted, how: str) -> LoraTensors:
    """The same without a file that stays."""
    names = [with_header(lora, "lora").name for lora, _ in (content, style)]
    with tempfile.TemporaryDirectory(prefix="unziplora-") as temporary:
        name = "+".join(names)[:LONGEST_FILE_NAME]
        return merge_to(Path(temporary) / f"{name}.safetensors", content, style, how)


def save_pair(
    content: Mapping[str, Tensor],
    style: Mapping[str, Tensor],
    folder: Path,
    name: str,
    *,
    overwrite: bool,
) -> dict[BranchName, Path]:
    """NAME_content and NAME_style in a folder, linked as a pair. Raises InvalidInput where one is
    not a file of a pair, or a name is taken and may not be overwritten."""
    paths = pair_files(folder, files.check_name(name))
    for path in paths.values():
        if os.path.lexists(path) and not overwrite:
            raise InvalidInput(f"{path.name} exists already. Choose another name, or overwrite it.")
    loras = {"content": _of_pair(content, "content"), "style": _of_pair(style, "style")}
    pairs = {lora.info.pair for lora in loras.values()}
    linked = (pairs.pop() if len(pairs) == 1 else None) or uuid.uuid4().hex
    with files.all_or_none() as undo:
        for role, path in paths.items():
            metadata = renamed(loras[role].metadata, path.stem, linked)
            write(LoraTensors(loras[role], metadata, path.stem), path, new=not overwrite)
            if not overwrite:
                undo.callback(files.remove, path)
    return paths


def _of_pair(lora: Mapping[str, Tensor], role: BranchName) -> LoraTensors:
    known = with_header(lora, role)
    if known.info.role != role or known.info.trigger is None or known.info.method is None:
        raise InvalidInput(
            f"What is connected as {role} is not the {role} LoRA of a pair. Connect one of Unzip "
            "Image or Load Pair; ComfyUI's Save LoRA Weights saves any other."
        )
    return known
