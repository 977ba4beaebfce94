"""Tells reForge and forge-classic of small checkpoints, whose text encoders and VAE they take to be
of SDXL's own size. Tests only."""

import importlib
import json
import os
import sys
from pathlib import Path

import torch

CONFIGS = Path(os.environ["UNZIPLORA_TEST_CONFIGS"])


def patched(name):
    return importlib.import_module(f"ldm_patched.modules.{name}")


def config(folder, part):
    return json.loads((folder / part / "config.json").read_text("utf-8"))


def small_clip(folder):
    """SDXLClipModel with other text encoders (ldm_patched/modules/sdxl_clip.py)."""
    sd1_clip = patched("sd1_clip")

    def encoder(part, arguments, **more):
        return sd1_clip.SDClipModel(
            layer_norm_hidden_state=False,
            textmodel_json_config=str(folder / part / "config.json"),
            **arguments,
            **more,
        )

    class SmallClip(patched("sdxl_clip").SDXLClipModel):
        def __init__(self, **arguments):
            torch.nn.Module.__init__(self)
            self.clip_l = encoder("text_encoder", arguments)
            special = {"start": 49406, "end": 49407, "pad": 0}
            self.clip_g = encoder("text_encoder_2", arguments, special_tokens=special)
            self.dtypes = {arguments["dtype"]}

    return SmallClip


def small_model(folder):
    """Found by its UNet's numbers (ldm_patched/modules/model_detection.py)."""
    unet, base = config(folder, "unet"), patched("supported_models_base")
    clip = small_clip(folder)

    def clip_target(self, state_dict=None):
        return base.ClipTarget(patched("sdxl_clip").SDXLTokenizer, clip)

    numbers = {
        "model_channels": unet["block_out_channels"][0],
        "use_linear_in_transformer": True,
        "context_dim": unet["cross_attention_dim"],
        "adm_in_channels": unet["projection_class_embeddings_input_dim"],
    }
    own = {"unet_config": numbers, "clip_target": clip_target}
    return type(f"Small{folder.name}", (patched("supported_models").SDXL,), own)


def tell_of_vaes(widths):
    """The VAE's config is fixed there unless it is given (ldm_patched/modules/sd.py)."""
    made = patched("sd").VAE
    original = made.__init__

    def init(self, sd=None, config=None, **rest):
        width = sd["encoder.conv_in.weight"].shape[0] if sd else 0
        original(self, sd=sd, config=widths.get(width, config), **rest)

    made.__init__ = init


def vae_config(folder):
    vae = config(folder, "vae")
    levels = vae["block_out_channels"]
    numbers = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 128,
        "in_channels": 3,
        "out_ch": 3,
        "ch": levels[0],
        "ch_mult": [width // levels[0] for width in levels],
        "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return levels[0], {"params": {"ddconfig": numbers, "embed_dim": 4}}


if "ldm_patched" in sys.modules:
    folders = list(CONFIGS.iterdir())
    patched("supported_models").models[:0] = [small_model(folder) for folder in folders]
    tell_of_vaes(dict(vae_config(folder) for folder in folders))
