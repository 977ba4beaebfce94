"""sgm's and diffusers' names of a UNet's modules, as one table that reads both ways.

A table has module names, or the beginnings of them; a tensor's name is translated by the longest
that it begins with. The rule for n residual blocks a level: `down_blocks.i.resnets.j` is
`input_blocks.{(n+1)i+j+1}.0` and `up_blocks.i.resnets.j` is `output_blocks.{(n+1)i+j}.0`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

Table = dict[str, str]

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
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
