"""sgm's and diffusers' names of a checkpoint's tensors outside the UNet (unet/module_table.py)."""

from __future__ import annotations

from unziplora.unet.module_table import Table

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer."
CLIP_G = "conditioner.embedders.1.model."

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
