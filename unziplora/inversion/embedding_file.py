"""An SDXL embedding as WebUIs and diffusers load it: clip_l (n, 768) and clip_g (n, 1280).

Source: AUTOMATIC1111 modules/textual_inversion/textual_inversion.py:291
(create_embedding_from_data). What our LoRAs say under ss_network_args
is under `unziplora` here, so that no program takes the file for a LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from unziplora import files as atomic
from unziplora.errors import InvalidInput, UnZipLoRAError, WriteError
from unziplora.lora.tensor_file import read_metadata
from unziplora.method.prompts import BranchName

Vectors = tuple[Tensor, Tensor]
_NAMES = ("clip_l", "clip_g")  # SDXL's first and second text encoder


def write_embedding(
    path: Path, vectors: Vectors, role: BranchName, made_by: Mapping[str, Any], *, new: bool
) -> None:
    """vectors: (width,) of each encoder. made_by: for the header. new: a file that is there by then
    is kept. Read back. Raises UnZipLoRAError for numbers that are not finite, and WriteError."""
    tensors = {
        name: vector.detach().float().cpu()[None].contiguous()
        for name, vector in zip(_NAMES, vectors, strict=True)
    }
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UnZipLoRAError(
            f"{path.name} would have numbers that are infinite or NaN. Train again with a lower "
            "learning rate, or a base model in bf16 or fp32."
        )
    with atomic.writing(path, new=new) as temporary:
        temporary.write_bytes(save(tensors, _header(path.stem, role, made_by)))
        if any(not torch.equal(t, tensors[name]) for name, t in load_file(temporary).items()):
            raise WriteError(f"{path.name} was not read back as written. Check the disk.")


def read_embedding(path: Path) -> tuple[Vectors, dict[str, Any]]:
    """The vectors, (n, width) each, and what the header says under `unziplora`. Raises InvalidInput
    for what is no SDXL embedding."""
    try:
        tensors = load_file(path)
        said = json.loads(read_metadata(path).get("unziplora", "{}"))
        return (tensors[_NAMES[0]], tensors[_NAMES[1]]), said
    except Exception as error:  # the library raises what it likes on other files
        raise InvalidInput(
            f"{path.name} is not an SDXL embedding: it has no clip_l and clip_g. Choose another "
            "file."
        ) from error


def _header(name: str, role: BranchName, made_by: Mapping[str, Any]) -> dict[str, str]:
    now = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
    what = "The subject" if role == "content" else "The style"
    said = {
        "sai_model_spec": "1.0.1",
        "architecture": "stable-diffusion-xl-v1-base/textual-inversion",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": f"{name} ({role})",
        "description": f"{what} of one image as an embedding (Inspiration Tree).",
        "date": now.isoformat(),
        "trigger_phrase": name,
        "tags": "Object" if role == "content" else "Style",
    }
    header = {f"modelspec.{key}": value for key, value in said.items()}
    return {**header, "unziplora": json.dumps({"role": role, **made_by}, ensure_ascii=False)}
