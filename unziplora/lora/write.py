"""The LoRA file: kohya's tensors in sgm names, checked by reading it back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unziplora import files as atomic
from unziplora.errors import UnZipLoRAError, WriteError
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.key_layouts import Target
from unziplora.unet.layer_names import kohya_name


@dataclass(frozen=True)
class SavedLora:
    """model_hash: sha256 of the tensors' bytes, which programs show and compare.
    dropped: layers left out because they are zero. notes: on what else is not in the file, a
    sentence each."""

    path: Path
    model_hash: str
    layers: int
    dropped: int
    notes: tuple[str, ...] = ()


def save_lora(
    path: Path,
    layers: Mapping[str, LoraLayer],
    metadata: Mapping[str, str],
    *,
    shapes: Mapping[str, tuple[int, int]],
    dtype: torch.dtype = torch.float16,
) -> SavedLora:
    """Writes layers (by sgm name) with kohya's hashes added to the metadata, and reads it back.

    shapes: (out, in) of the live model's layers, which every key must match. Layers whose `up` is
    all zero are left out. Raises UnZipLoRAError, and leaves nothing at `path`, where a number is
    not finite in `dtype`, where nothing was learned, or where what was read back is not what was
    meant.
    """
    named = {kohya_name(layer): lora for layer, lora in layers.items()}
    known = {kohya_name(layer): shape for layer, shape in shapes.items()}
    return save_modules(path, named, metadata, shapes=known, dtype=dtype)


def module_name(target: Target) -> str:
    """kohya's name of a module of any network (networks/lora.py:870 of kohya-ss/sd-scripts)."""
    prefix = "lora_unet" if target.network == "unet" else f"lora_{target.network}"
    return f"{prefix}_{target.module.replace('.', '_')}"


def save_modules(
    path: Path,
    modules: Mapping[str, LoraLayer],
    metadata: Mapping[str, str],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype = torch.float16,
    new: bool = False,
) -> SavedLora:
    """`save_lora` for modules by kohya's names; shapes are (out, in) or (out, in, h, w). new: a
    file that is there by then is kept, and InvalidInput raised."""
    tensors = {}
    for name, lora in modules.items():
        if lora.up.to(dtype).any():
            tensors.update(_tensors(name, lora, dtype))
    if not tensors:
        raise UnZipLoRAError(
            f"{path.name} would be empty: this LoRA has learned nothing yet. "
            "Train some more steps before saving."
        )
    data, model_hash = _serialised(tensors, metadata)
    with atomic.writing(path, new=new) as temporary:
        temporary.write_bytes(data)
        _check(temporary, path.name, tensors, shapes)
    return SavedLora(path, model_hash, len(tensors) // 3, len(modules) - len(tensors) // 3)


def tensor_hash(path: Path) -> str:
    """sha256 of the bytes after a file's header: what sshs_model_hash stores (kohya's
    library/train_util.py:3285), and of which WebUIs show the first 12 digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _tensors(name: str, lora: LoraLayer, dtype: torch.dtype) -> dict[str, Tensor]:
    """The three tensors of a module, contiguous, on the CPU."""
    tensors = {
        f"{name}.lora_down.weight": lora.down,
        f"{name}.lora_up.weight": lora.up,
        f"{name}.alpha": torch.tensor(lora.alpha),
    }
    tensors = {key: t.detach().to("cpu", dtype).contiguous() for key, t in tensors.items()}
    for tensor in tensors.values():
        if not tensor.isfinite().all():
            raise UnZipLoRAError(
                f"The layer {name} has numbers that are infinite or NaN in the file's "
                f"{str(dtype).removeprefix('torch.')}. Train again with a lower learning rate."
            )
    return tensors


def _serialised(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, str]:
    """The file's bytes, and sshs_model_hash.

    Both hashes are kohya's (sd-scripts library/train_util.py:3259-3299): taken over a file with
    the ss_ keys only; the first covers the tensors alone, the older one 64 KiB at 1 MiB.
    """
    metadata = {key: atomic.encodable(value) for key, value in metadata.items()}
    bare = save(dict(tensors), {k: v for k, v in metadata.items() if k.startswith("ss_")})
    start = 8 + int.from_bytes(bare[:8], "little")
    model_hash = hashlib.sha256(memoryview(bare)[start:]).hexdigest()
    legacy_hash = hashlib.sha256(memoryview(bare)[0x100000:0x110000]).hexdigest()[:8]
    hashes = {
        "sshs_model_hash": model_hash,
        "sshs_legacy_hash": legacy_hash,
        "modelspec.hash_sha256": f"0x{model_hash}",
    }
    return save(dict(tensors), {**metadata, **hashes}), model_hash


def _check(
    written: Path, name: str, meant: Mapping[str, Tensor], known: Mapping[str, tuple[int, ...]]
) -> None:
    """Every tensor on disk is one of the live model's layers and what was meant to be written."""
    try:
        with safe_open(written, framework="pt") as file:
            keys = set(file.keys())
            wrong = sorted(keys ^ meant.keys()) + sorted(
                key
                for key in keys & meant.keys()
                if not torch.equal(file.get_tensor(key), meant[key])
            )
    except SafetensorError as error:
        raise WriteError(
            f"{name} could not be read back after writing ({error}). Check the disk and save again."
        ) from error
    for module in sorted({key.partition(".")[0] for key in meant}):
        down, up = (meant[f"{module}.lora_{part}.weight"].shape for part in ("down", "up"))
        fits = down[0] == up[1] and known.get(module) == (up[0], *down[1:])
        if not fits:
            wrong.append(module)
    if wrong:
        raise UnZipLoRAError(
            f"{name} was not written: {len(wrong)} of its tensors, such as {wrong[0]}, do not "
            "match the model or the disk. Save again; if it happens twice, report it with the log."
        )
