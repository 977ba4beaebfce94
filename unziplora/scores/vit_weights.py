"""Vision transformers' published layouts as transformers names them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.files import check_regular_file

_WRAPPERS = ("model_state_dict", "state_dict", "teacher", "model")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or a .pth file; nothing but tensors is ever unpickled. Raises
    InvalidInput."""
    check_regular_file(path)
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path) from error
    except Exception as error:  # pickle's own errors, of whatever lies in the file
        raise _unreadable(path) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise _unreadable(path)
    return {
        str(name).removeprefix("module."): tensor
        for name, tensor in found.items()
        if isinstance(tensor, Tensor)
    }


def _unreadable(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path.name} cannot be read as weights alone. Save its state_dict as .safetensors."
    )


def depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks there are below PREFIX.N."""
    skip = len(prefix.split("."))
    return 1 + max(
        (int(name.split(".")[skip]) for name in state if name.startswith(f"{prefix}.")), default=-1
    )


def load_strictly(
    kind: Any, config: Any, state: Mapping[str, Tensor], path: Path, **options: Any
) -> Any:
    """A transformers model of this kind with the hub's tensor names, which each version of
    transformers maps to its own. Raises InvalidInput where a tensor lacks or does not fit."""
    try:
        model, found = kind.from_pretrained(
            None, config=config, state_dict=dict(state), output_loading_info=True, **options
        )
        wrong = [*found["missing_keys"], *found["mismatched_keys"]]
    except RuntimeError as error:  # of sizes that do not fit
        wrong = [str(error).splitlines()[-1].strip()]
    if wrong:
        raise InvalidInput(
            f"{path.name} does not hold this network: {wrong[0]} lacks or has another shape. "
            "Name the published file."
        )
    return model.eval()


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINO's own and timm's names (blocks.N.attn.qkv) as transformers' ViTModel names them."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    parts = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    found = {names[name]: tensor for name, tensor in state.items() if name in names}
    projections = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    return found | _blocks(state, "blocks", "encoder.layer", parts, "attn.qkv.", projections)


def from_openai(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """openai/CLIP's visual tower (resblocks.N.attn.in_proj_weight) as CLIPVisionModel names it."""
    model = "vision_model."
    names = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "ln_pre.weight": "pre_layrnorm.weight",
        "ln_pre.bias": "pre_layrnorm.bias",
        "ln_post.weight": "post_layernorm.weight",
        "ln_post.bias": "post_layernorm.bias",
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    found = {model + ours: state[prefix + theirs] for theirs, ours in names.items()}
    blocks, layers = f"{prefix}transformer.resblocks", f"{model}encoder.layers"
    projections = [f"self_attn.{name}_proj" for name in ("q", "k", "v")]
    return found | _blocks(state, blocks, layers, parts, "attn.in_proj_", projections)


def _blocks(
    state: Mapping[str, Tensor],
    theirs: str,
    ours: str,
    parts: Mapping[str, str],
    joint: str,
    projections: Sequence[str],
) -> dict[str, Tensor]:
    """The tensors of all blocks THEIRS.N under the names OURS.N. parts: names within a block, ours
    by theirs. joint: how the tensors begin that hold query, key and value in one; projections: what
    each of the three is called."""
    found = {}
    for number, kind in itertools.product(range(depth(state, theirs)), ("weight", "bias")):
        for their_name, our_name in parts.items():
            tensor = state[f"{theirs}.{number}.{their_name}.{kind}"]
            found[f"{ours}.{number}.{our_name}.{kind}"] = tensor
        thirds = state[f"{theirs}.{number}.{joint}{kind}"].chunk(3)
        for our_name, tensor in zip(projections, thirds, strict=True):
            found[f"{ours}.{number}.{our_name}.{kind}"] = tensor
    return found
