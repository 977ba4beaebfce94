"""Text and sizes as sgm's conditioner encodes them, in Automatic1111 and in what kept it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unziplora.host import SizeIds
from unziplora.hosts.webui.txt2img import webui

# input keys of sgm's size embedders, in SizeIds' words
_SIZES = {
    "original_size_as_tuple": "original",
    "crop_coords_top_left": "crop",
    "target_size_as_tuple": "target",
}


def embeddings() -> list[str]:
    """Names of the installed embeddings that fit the model."""
    return list(webui("sd_hijack").model_hijack.embedding_db.word_embeddings)


def text_encoders(model: Any) -> int:
    """How many there are."""
    return sum(embedder.input_key == "txt" for embedder in model.conditioner.embedders)


@torch.no_grad()
def encoded(model: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """context (n, 77 k, width) and pooled (n, width) on the model's device: attention syntax
    counts, and one long prompt pads all."""
    # forge-classic takes no default for the size (its modules/sd_models_xl.py:21); it is cut off
    batch = webui("prompt_parser").SdConditioning(list(prompts), width=1024, height=1024)
    found = model.get_learned_conditioning(batch)
    vector = found["vector"]
    sizes = sum(2 * embedder.outdim for embedder in _size_embedders(model).values())
    return found["crossattn"].clone(), vector[:, : vector.shape[1] - sizes].clone()


@torch.no_grad()
def vector(model: Any, pooled: Tensor, sizes: SizeIds) -> Tensor:
    """(n, pooled and six size embeddings) of pooled (n, width)."""
    parts = [pooled]
    for word, embedder in _size_embedders(model).items():
        ids = torch.tensor([getattr(sizes, word)], device=pooled.device, dtype=torch.float32)
        parts.append(embedder(ids).to(pooled.dtype).expand(len(pooled), -1))
    return torch.cat(parts, dim=1)


def _size_embedders(model: Any) -> dict[str, Any]:
    """By SizeIds' words, in the order of the vector."""
    return {
        _SIZES[embedder.input_key]: embedder
        for embedder in model.conditioner.embedders
        if embedder.input_key in _SIZES
    }
