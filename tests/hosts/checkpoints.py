"""Small checkpoints that a real WebUI loads: a random SDXL of the full topology, the miniature.

A WebUI knows SDXL's text encoders by name only. What it must be told of smaller ones is written
here as files, and registered by the helper extension beside this file. Only tests need that: real
checkpoints load without it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel

from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.checkpoints.identify import identify
from unziplora.checkpoints.tokenizer import OWN as TOKENIZER
from unziplora.mini import MODEL as MINIATURE
from unziplora.testing.random_checkpoint import Widths, write_random_model

SIZES = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")


@dataclass(frozen=True)
class Shape:
    """The configs of a checkpoint's four parts, as diffusers and transformers write them."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], dict[str, Any]]
    v_prediction: bool


def random_model(folder: Path) -> Path:
    """560 attention projections, as in SDXL, at a tenth of its widths; draws noise at 128 px."""
    return write_random_model(folder / "tiny.safetensors", resolution=128)


def velocity_model(folder: Path) -> Path:
    """The same, that predicts velocity on a schedule with zero terminal SNR, and says so."""
    return write_random_model(
        folder / "velocity.safetensors",
        resolution=128,
        prediction_type="v_prediction",
        zero_snr=True,
    )


def miniature(folder: Path) -> Path:
    """A copy of the miniature; where this checkout has none, random weights of its topology."""
    if MINIATURE.is_file():
        return Path(shutil.copy(MINIATURE, folder))
    widths = Widths(unet=(64, 128, 128), text=(32, 64))
    return write_random_model(
        folder / "mini.safetensors", architecture="mini", widths=widths, resolution=128
    )


def describe(checkpoint: Path, folder: Path) -> None:
    """Writes what Automatic1111 and Forge must know of a checkpoint: a .yaml beside it, and in
    FOLDER/NAME its text encoders and its parts' configs."""
    shape = shape_of(checkpoint)
    own = folder / checkpoint.stem
    clip = own / "text_encoder"
    for part, config in zip(("text_encoder", "text_encoder_2"), shape.text, strict=True):
        _write(own / part / "config.json", config)
    _write(own / "unet" / "config.json", shape.unet)
    _write(own / "vae" / "config.json", shape.vae)
    _write(own / "scheduler" / "scheduler_config.json", _SCHEDULER)
    for part, padding in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        shutil.copytree(TOKENIZER, own / part)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            content = json.loads((own / part / name).read_text("utf-8"))
            _write(own / part / name, {**content, "pad_token": padding})
    _write(own / "model_index.json", _PARTS)
    shutil.copytree(own / "tokenizer", clip, dirs_exist_ok=True)  # sgm loads both from one folder
    _write(own / "open_clip" / f"{arch(checkpoint)}.json", _open_clip(shape.text[1]))
    # JSON is YAML too
    _write(checkpoint.with_suffix(".yaml"), sgm_config(shape, clip, arch(checkpoint)))


def arch(checkpoint: Path) -> str:
    """What open_clip calls the second text encoder."""
    return f"test-{checkpoint.stem}"


def shape_of(checkpoint: Path) -> Shape:
    import torch

    found = identify(checkpoint)
    parts, cpu = open_checkpoint(found), torch.device("cpu")
    text = [
        json.loads(model.config.to_json_string())
        for model in parts.text_encoders(cpu, torch.float16)
    ]
    unet, vae = parts.unet(cpu, torch.float16), parts.vae(cpu)
    assert isinstance(unet, UNet2DConditionModel)
    assert isinstance(vae, AutoencoderKL)
    return Shape(dict(unet.config), dict(vae.config), (text[0], text[1]),
                 found.prediction_type == "v_prediction")  # fmt: skip


def sgm_config(shape: Shape, clip: Path, arch: str) -> dict[str, Any]:
    """The checkpoint's config as sgm and Automatic1111 read it."""
    diffusion, kind = (
        "sgm.modules.diffusionmodules",
        "VScaling" if shape.v_prediction else "EpsScaling",
    )
    weighting = "VWeighting" if shape.v_prediction else "EpsWeighting"
    return {
        "model": {
            "target": "sgm.models.diffusion.DiffusionEngine",
            "params": {
                "scale_factor": shape.vae["scaling_factor"],
                "disable_first_stage_autocast": True,
                "denoiser_config": {
                    "target": f"{diffusion}.denoiser.DiscreteDenoiser",
                    "params": {
                        "num_idx": 1000,
                        "weighting_config": {
                            "target": f"{diffusion}.denoiser_weighting.{weighting}"
                        },
                        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.{kind}"},
                        "discretization_config": {
                            "target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"
                        },
                    },
                },
                "network_config": {
                    "target": f"{diffusion}.openaimodel.UNetModel",
                    "params": _unet(shape.unet),
                },
                "conditioner_config": {
                    "target": "sgm.modules.GeneralConditioner",
                    "params": {"emb_models": _embedders(shape, clip, arch)},
                },
                "first_stage_config": {
                    "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
                    "params": _vae(shape.vae),
                },
            },
        }
    }


def _unet(config: dict[str, Any]) -> dict[str, Any]:
    widths = config["block_out_channels"]
    # one number a level, or one for each of its attentions, all alike
    depths = [n if isinstance(n, int) else n[0] for n in config["transformer_layers_per_block"][1:]]
    return {
        "adm_in_channels": config["projection_class_embeddings_input_dim"],
        "num_classes": "sequential",
        "use_checkpoint": False,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": widths[0],
        "attention_resolutions": [4, 2],
        "num_res_blocks": 2,
        "channel_mult": [width // widths[0] for width in widths],
        "num_head_channels": 64,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": [1, *depths],
        "context_dim": config["cross_attention_dim"],
        "spatial_transformer_attn_type": "softmax-xformers",
        "legacy": False,
    }


def _embedders(shape: Shape, clip: Path, arch: str) -> list[dict[str, Any]]:
    encoders = "sgm.modules.encoders.modules"
    last = shape.text[0]["num_hidden_layers"] - 1
    embedders: list[dict[str, Any]] = [
        {
            "input_key": "txt",
            "target": f"{encoders}.FrozenCLIPEmbedder",
            "params": {"layer": "hidden", "layer_idx": last, "version": str(clip)},
        },
        {
            "input_key": "txt",
            "target": f"{encoders}.FrozenOpenCLIPEmbedder2",
            "params": {
                "arch": arch,
                "version": "none",
                "freeze": True,
                "layer": "penultimate",
                "always_return_pooled": True,
                "legacy": False,
            },
        },
    ]
    for key in SIZES:
        target = f"{encoders}.ConcatTimestepEmbedderND"
        embedders.append({"input_key": key, "target": target, "params": {"outdim": 256}})
    return [{"is_trainable": False, **embedder} for embedder in embedders]


def _vae(config: dict[str, Any]) -> dict[str, Any]:
    widths = config["block_out_channels"]
    return {
        "embed_dim": 4,
        "monitor": "val/rec_loss",
        "ddconfig": {
            "attn_type": "vanilla-xformers",
            "double_z": True,
            "z_channels": 4,
            "resolution": 128,
            "in_channels": 3,
            "out_ch": 3,
            "ch": widths[0],
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    }


def _open_clip(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "embed_dim": config["projection_dim"],
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "patch_size": 16,
            "head_width": 32,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": config["vocab_size"],
            "width": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "layers": config["num_hidden_layers"],
        },
    }


_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_PARTS = {
    "_class_name": "StableDiffusionXLPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=str), "utf-8")
