"""The configs of a checkpoint's four parts, read off the shapes of its tensors.

diffusers' own single-file loader knows SDXL only and fetches configs from a hub; the shapes say
all that is needed, for every member of the family and for any width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unziplora.checkpoints.header import Shape
from unziplora.checkpoints.key_map import vae_table
from unziplora.errors import InvalidInput
from unziplora.unet.module_table import Table, inverse, rename, unet_table

Shapes = Mapping[str, Shape]

SIZE_IDS = 6  # original, crop and target, two numbers each
HEAD_CHANNELS = 64  # SDXL's `num_head_channels`; CLIP-L and bigG have the same
VAE_SCALE = 0.13025  # SDXL's `scale_factor`


@dataclass(frozen=True)
class UNetShape:
    """A UNet of the SDXL family.

    widths: channels by level, the finest first; down, up: transformer depths by level and block,
    in the order in which the UNet runs them (0: no attention); middle: "attention", "resnet"
    (a residual block only) or "none"; context: width of the text's hidden states; vector: width
    of the vector conditioning (pooled text and size ids).
    """

    widths: tuple[int, ...]
    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    middle: str
    context: int
    vector: int
    in_channels: int
    out_channels: int

    @property
    def res_blocks(self) -> int:
        return len(self.down[0])

    @property
    def attention_levels(self) -> set[int]:
        return {level for level, depths in enumerate(self.down) if any(depths)}

    def table(self) -> Table:
        """sgm -> diffusers names of its tensors."""
        return unet_table(len(self.widths), self.res_blocks, self.attention_levels)

    def config(self, pooled: int, head_channels: int = HEAD_CHANNELS) -> dict[str, Any]:
        """diffusers' config; pooled: width of the second text encoder's projection."""
        middle = {"attention": "UNetMidBlock2DCrossAttn", "resnet": "UNetMidBlock2D", "none": None}
        down = ["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in self.down]
        up = ["CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in self.up]
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.widths),
            "layers_per_block": self.res_blocks,
            "down_block_types": down,
            "up_block_types": up,
            "mid_block_type": middle[self.middle],
            "transformer_layers_per_block": [_depths(d) for d in self.down],
            "reverse_transformer_layers_per_block": [_depths(d) for d in self.up],
            # diffusers' `attention_head_dim` is the number of heads (its issue 2011)
            "attention_head_dim": [max(width // head_channels, 1) for width in self.widths],
            "cross_attention_dim": self.context,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (self.vector - pooled) // SIZE_IDS,
            "projection_class_embeddings_input_dim": self.vector,
            "sample_size": 128,
        }


def _depths(depths: tuple[int, ...]) -> int | list[int]:
    return list(depths) if any(depths) else 1


def unet_shape(shapes: Shapes) -> UNetShape:
    """Of sgm names below `model.diffusion_model.`; KeyError where one that must be is missing."""
    downsamplers = _numbers(r"input_blocks\.(\d+)\.0\.op\.weight", shapes)
    levels = len(downsamplers) + 1
    res_blocks = min(downsamplers, default=3) - 1
    stride = res_blocks + 1
    down = tuple(
        tuple(_depth(shapes, f"input_blocks.{stride * i + j + 1}.1") for j in range(res_blocks))
        for i in range(levels)
    )
    up = tuple(
        tuple(_depth(shapes, f"output_blocks.{stride * i + j}.1") for j in range(stride))
        for i in range(levels)
    )
    middle = "none"
    if "middle_block.0.in_layers.0.weight" in shapes:
        middle = "attention" if _depth(shapes, "middle_block.1") else "resnet"
    contexts = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    return UNetShape(
        widths=tuple(
            shapes[f"input_blocks.{stride * i + 1}.0.out_layers.3.weight"][0] for i in range(levels)
        ),
        down=down,
        up=up,
        middle=middle,
        context=max(contexts, default=0),
        vector=shapes["label_emb.0.0.weight"][1],
        in_channels=shapes["input_blocks.0.0.weight"][1],
        out_channels=shapes["out.2.weight"][0],
    )


def _depth(shapes: Shapes, group: str) -> int:
    blocks = _numbers(rf"{re.escape(group)}\.transformer_blocks\.(\d+)\.norm1\.weight", shapes)
    return len(blocks)


def _numbers(pattern: str, shapes: Shapes) -> set[int]:
    compiled = re.compile(pattern)
    return {int(match[1]) for name in shapes if (match := compiled.fullmatch(name))}


def vae_levels(shapes: Shapes) -> int:
    """Of ldm names below `first_stage_model.`."""
    return len({name.split(".")[2] for name in shapes if name.startswith("encoder.down.")})


def vae_config(shapes: Shapes, scale: float = VAE_SCALE) -> dict[str, Any]:
    """diffusers' config of a VAE with these ldm names."""
    levels = vae_levels(shapes)
    blocks = _numbers(r"encoder\.down\.0\.block\.(\d+)\.conv1\.weight", shapes)
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)
        ],
        "layers_per_block": len(blocks),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": scale,
        "sample_size": 1024,
        "force_upcast": True,
    }


def diffusers_vae_shapes(shapes: Shapes) -> Shapes:
    """A diffusers VAE's shapes by their ldm names, for `vae_config`."""
    levels = len({name.split(".")[2] for name in shapes if name.startswith("encoder.down_blocks.")})
    table = inverse(vae_table(levels))
    return {rename(name, table): shape for name, shape in shapes.items()}


def clip_config(shapes: Shapes, *, projection: bool) -> dict[str, Any]:
    """transformers' config of a CLIP text encoder with these transformers names.

    projection: whether it is the second one (OpenCLIP's: exact GELU, a text projection).
    """
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    layers = _numbers(r"text_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.weight", shapes)
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // HEAD_CHANNELS, 1),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": "gelu" if projection else "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0 if projection else vocabulary - 1,
    }
    if projection:
        config["projection_dim"] = shapes["text_projection.weight"][0]
    return config


def checked(unet: UNetShape, pooled: int, where: str) -> UNetShape:
    """The same, if the text encoders' widths and the UNet's fit; else InvalidInput."""
    rest = unet.vector - pooled
    if rest <= 0 or rest % SIZE_IDS:
        raise InvalidInput(
            f"{where} has a UNet that takes {unet.vector} numbers of pooled text and size, which "
            f"its text encoder of width {pooled} cannot fill. Choose an SDXL checkpoint."
        )
    return unet
