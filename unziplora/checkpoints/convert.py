"""One tensor from sgm's single-file layout into diffusers', and whole models back.

`importers` take a tensor's name below its part's prefix and give its name or names in diffusers
(transformers for the text encoders) with the tensor as that library keeps it. `export_sgm` is the
exact inverse of all four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from unziplora.checkpoints.key_map import (
    CLIP_G,
    CLIP_L,
    UNET,
    VAE,
    clip_g_table,
    vae_table,
)
from unziplora.unet.module_table import Table, inverse, rename, unet_table

Named = tuple[str, Tensor]
Importer = Callable[[str, Tensor], Iterator[Named]]

TEXT = "text_model."
# left over by training scripts and other programs; no model has a use for them
_IGNORED = ("position_ids", "logit_scale")


def by_table(table: Table) -> Importer:
    """An importer that only renames; KeyError for a name that the table does not know."""

    def convert(name: str, tensor: Tensor) -> Iterator[Named]:
        yield rename(name, table), tensor

    return convert


def vae_importer(levels: int) -> Importer:
    """Of an ldm VAE: its attention's 1x1 convolutions become linear."""
    table = vae_table(levels)

    def convert(name: str, tensor: Tensor) -> Iterator[Named]:
        new = rename(name, table)
        yield new, tensor[:, :, 0, 0] if ".attentions." in new and tensor.ndim == 4 else tensor

    return convert


def clip_l(name: str, tensor: Tensor) -> Iterator[Named]:
    """Of CLIP-L, which sgm keeps as transformers does."""
    if not name.endswith(_IGNORED) and name != "text_projection.weight":
        if not name.startswith(TEXT):
            raise KeyError(name)
        yield name, tensor


def clip_g_importer(layers: int) -> Importer:
    """Of OpenCLIP bigG: q, k and v come apart, the projection is transposed."""
    table = clip_g_table(layers)

    def convert(name: str, tensor: Tensor) -> Iterator[Named]:
        if name.endswith(_IGNORED):
            return
        new = rename(name, table)
        if ".qkv." in new:
            for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                yield new.replace("qkv", f"{letter}_proj"), rows
        else:
            yield new, tensor.T if name == "text_projection" else tensor

    return convert


def text_state(model: nn.Module) -> dict[str, Tensor]:
    """A text encoder's tensors, with `text_model.` before them: transformers 5 leaves it out of
    CLIPTextModel, 4 does not."""
    return {
        name if name.startswith((TEXT, "text_projection")) else TEXT + name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(_IGNORED)
    }


def export_sgm(
    unet: nn.Module, vae: nn.Module | None, te1: nn.Module, te2: nn.Module
) -> dict[str, Tensor]:
    """The four models' tensors in the layout of an SDXL single file; meta tensors stay meta.

    unet: diffusers' UNet2DConditionModel; vae: AutoencoderKL, or None to leave it out; te1, te2:
    CLIPTextModel and CLIPTextModelWithProjection. Tensors are contiguous and may share memory
    with the models.
    """
    state = {UNET + name: tensor for name, tensor in _export_unet(unet.state_dict())}
    if vae is not None:
        state.update((VAE + name, tensor) for name, tensor in _export_vae(vae.state_dict()))
    state.update((CLIP_L + name, tensor) for name, tensor in text_state(te1).items())
    state.update((CLIP_G + name, tensor) for name, tensor in _export_clip_g(text_state(te2)))
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _export_unet(state: Mapping[str, Tensor]) -> Iterator[Named]:
    levels = {name.split(".")[1] for name in state if name.startswith("down_blocks.")}
    resnets = {name.split(".")[3] for name in state if name.startswith("down_blocks.0.resnets.")}
    attention = {int(name.split(".")[1]) for name in state if ".attentions." in name
                 and name.startswith("down_blocks.")}  # fmt: skip
    table = inverse(unet_table(len(levels), len(resnets), attention))
    return ((rename(name, table), tensor) for name, tensor in state.items())


def _export_vae(state: Mapping[str, Tensor]) -> Iterator[Named]:
    levels = {name.split(".")[2] for name in state if name.startswith("encoder.down_blocks.")}
    table = inverse(vae_table(len(levels)))
    for name, tensor in state.items():
        linear = ".attentions." in name and tensor.ndim == 2
        yield rename(name, table), tensor[:, :, None, None] if linear else tensor


def _export_clip_g(state: Mapping[str, Tensor]) -> Iterator[Named]:
    layers = {name.split(".")[3] for name in state if name.startswith("text_model.encoder.layers.")}
    table = inverse(clip_g_table(len(layers)))
    for name, tensor in state.items():
        if ".q_proj." in name:
            qkv = [state[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            yield rename(name.replace(".q_proj.", ".qkv."), table), torch.cat(qkv)
        elif ".k_proj." not in name and ".v_proj." not in name:
            new = rename(name, table)
            yield new, tensor.T if new == "text_projection" else tensor
