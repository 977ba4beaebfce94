"""sgm's and diffusers' names of a checkpoint's tensors, as tables that read both ways.

A table has module names, or the beginnings of them; a tensor's name is translated by the longest
that it begins with. The rule for n residual blocks a level: `down_blocks.i.resnets.j` is
`input_blocks.{(n+1)i+j+1}.0` and `up_blocks.i.resnets.j` is `output_blocks.{(n+1)i+j}.0`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer."
CLIP_G = "conditioner.embedders.1.model."

Table = dict[str, str]

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_CLIP_G_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def rename(name: str, table: Mapping[str, str]) -> str:
    """`name` with the longest beginning that is in the table replaced; KeyError if none is."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (new := table.get(".".join(parts[:length]))) is not None:
            return ".".join([new, *parts[length:]])
    raise KeyError(name)


def inverse(table: Table) -> Table:
    """The table read from right to left."""
    return {new: old for old, new in table.items()}


def unet_table(levels: int, res_blocks: int, attention_levels: Collection[int]) -> Table:
    """sgm -> diffusers, for a UNet of so many levels (0 is the finest) and blocks a level."""
    table = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }

    def resnet(old: str, new: str) -> None:
        table.update({f"{old}.{a}": f"{new}.{b}" for a, b in _RESNET.items()})

    stride = res_blocks + 1
    for i in range(levels):
        for j in range(res_blocks):
            k = stride * i + j + 1
            resnet(f"input_blocks.{k}.0", f"down_blocks.{i}.resnets.{j}")
            table[f"input_blocks.{k}.1"] = f"down_blocks.{i}.attentions.{j}"
        if i < levels - 1:
            down = f"input_blocks.{stride * (i + 1)}.0.op"
            table[down] = f"down_blocks.{i}.downsamplers.0.conv"
        for j in range(stride):
            k = stride * i + j
            resnet(f"output_blocks.{k}.0", f"up_blocks.{i}.resnets.{j}")
            table[f"output_blocks.{k}.1"] = f"up_blocks.{i}.attentions.{j}"
        if i < levels - 1:
            place = 2 if levels - 1 - i in attention_levels else 1  # behind the attention, if any
            up = f"output_blocks.{stride * i + res_blocks}.{place}.conv"
            table[up] = f"up_blocks.{i}.upsamplers.0.conv"
    resnet("middle_block.0", "mid_block.resnets.0")
    table["middle_block.1"] = "mid_block.attentions.0"
    resnet("middle_block.2", "mid_block.resnets.1")
    return table


def vae_table(levels: int) -> Table:
    """ldm -> diffusers, for a VAE of so many levels; the attention's 1x1 convolutions are linear
    layers in diffusers."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for part in ("encoder", "decoder"):
        for name in ("conv_in", "conv_out"):
            table[f"{part}.{name}"] = f"{part}.{name}"
        table[f"{part}.norm_out"] = f"{part}.conv_norm_out"
        for j in (0, 1):
            table[f"{part}.mid.block_{j + 1}"] = f"{part}.mid_block.resnets.{j}"
        for old, new in _VAE_ATTENTION.items():
            table[f"{part}.mid.attn_1.{old}"] = f"{part}.mid_block.attentions.0.{new}"
    for i in range(levels):
        up = levels - 1 - i
        for j in range(8):  # more than any VAE has
            for old, new in (("", ""), (".nin_shortcut", ".conv_shortcut")):
                down_block = f"encoder.down_blocks.{i}.resnets.{j}{new}"
                table[f"encoder.down.{i}.block.{j}{old}"] = down_block
                up_block = f"decoder.up_blocks.{i}.resnets.{j}{new}"
                table[f"decoder.up.{up}.block.{j}{old}"] = up_block
        table[f"encoder.down.{i}.downsample.conv"] = f"encoder.down_blocks.{i}.downsamplers.0.conv"
        table[f"decoder.up.{up}.upsample.conv"] = f"decoder.up_blocks.{i}.upsamplers.0.conv"
    return table


def clip_g_table(layers: int) -> Table:
    """OpenCLIP -> transformers, all but `attn.in_proj_*` (q, k and v in one tensor) and
    `text_projection` (transposed), which `checkpoint` handles."""
    table = {
        "token_embedding": "text_model.embeddings.token_embedding",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final": "text_model.final_layer_norm",
        "text_projection": "text_projection.weight",
    }
    for i in range(layers):
        for old, new in _CLIP_G_LAYER.items():
            table[f"transformer.resblocks.{i}.{old}"] = f"text_model.encoder.layers.{i}.{new}"
        fused = f"text_model.encoder.layers.{i}.self_attn.qkv"
        table[f"transformer.resblocks.{i}.attn.in_proj_weight"] = f"{fused}.weight"
        table[f"transformer.resblocks.{i}.attn.in_proj_bias"] = f"{fused}.bias"
    return table
