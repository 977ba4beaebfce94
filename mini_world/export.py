"""Write the miniature: `python -m mini_world.export --run-dir DIR --out unziplora/mini`.

One file in sgm's layout (fp16) with the .yaml that WebUIs read, or with --folder a diffusers
folder. `--from FILE --folder DIR` makes the folder of a file that is there already.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file

from mini_world.miniature import Miniature
from mini_world.model import RESOLUTION, TEXT_WIDTHS, TIME_ID_WIDTH, VAE_SCALE, tokenizers
from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.checkpoints.convert import export_sgm
from unziplora.checkpoints.hints import DEFAULTS
from unziplora.checkpoints.identify import identify
from unziplora.unet.architectures import MINIATURE

TITLE = "UnZipLoRA miniature"
# What a run on it takes where the user says nothing, and with which guidance it draws best.
TRAINING = {"steps": 300, "rank": 16, "lr": 1e-3, "architecture": MINIATURE, "guidance": 2.5}
_DIFFUSION = "sgm.modules.diffusionmodules"


def trained(run_dir: Path) -> tuple[Miniature, AutoencoderKL]:
    """The moving average of a training (emoji/train.py), and its VAE."""
    path = run_dir / "unet.pt"
    if not path.exists():
        raise SystemExit(f"{run_dir} holds no training. Name the folder that it was run in.")
    model = Miniature()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["average"])
    return model.eval(), AutoencoderKL.from_pretrained(run_dir / "vae").eval()


def write_file(model: Miniature, vae: AutoencoderKL, path: Path) -> None:
    """PATH.safetensors, fp16, and PATH.yaml."""
    tensors = export_sgm(model.unet, vae, model.text.first, model.text.second)
    tensors = {name: tensor.detach().half() for name, tensor in tensors.items()}
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise SystemExit(f"Not finite in fp16: {', '.join(bad[:3])}. Go back to an older state.")
    tensors["v_pred"] = torch.zeros(0, dtype=torch.float16)  # how Forge and others see velocity
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": TITLE,
        "modelspec.resolution": f"{RESOLUTION}x{RESOLUTION}",
        "modelspec.prediction_type": "v",
        DEFAULTS: json.dumps(TRAINING),
    }
    save_file(tensors, path.with_suffix(".safetensors"), metadata)
    path.with_suffix(".yaml").write_text(config_text(model, vae), "utf-8")


def config_text(model: Miniature, vae: AutoencoderKL) -> str:
    """The model's config as sgm and the WebUIs read it."""
    config = {
        "target": "sgm.models.diffusion.DiffusionEngine",
        "params": {
            "scale_factor": VAE_SCALE,
            "disable_first_stage_autocast": True,
            "denoiser_config": _denoiser(),
            "network_config": _network(model.unet.config),
            "conditioner_config": _conditioner(),
            "first_stage_config": _first_stage(vae.config),
        },
    }
    return yaml.safe_dump({"model": config}, sort_keys=False)


def _denoiser() -> dict[str, Any]:
    return {
        "target": f"{_DIFFUSION}.denoiser.DiscreteDenoiser",
        "params": {
            "num_idx": 1000,
            "weighting_config": {"target": f"{_DIFFUSION}.denoiser_weighting.VWeighting"},
            "scaling_config": {"target": f"{_DIFFUSION}.denoiser_scaling.VScaling"},
            "discretization_config": {
                "target": f"{_DIFFUSION}.discretizer.LegacyDDPMDiscretization"
            },
        },
    }


def _network(unet: Any) -> dict[str, Any]:
    """unet: the config of diffusers' UNet."""
    base = unet.block_out_channels[0]
    return {
        "target": f"{_DIFFUSION}.openaimodel.UNetModel",
        "params": {
            "adm_in_channels": TEXT_WIDTHS[1] + 6 * TIME_ID_WIDTH,
            "num_classes": "sequential",
            "use_checkpoint": False,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": base,
            "attention_resolutions": [4, 2],
            "num_res_blocks": 2,
            "channel_mult": [width // base for width in unet.block_out_channels],
            "num_head_channels": 64,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": True,
            "transformer_depth": [1, 1, 1],
            "context_dim": sum(TEXT_WIDTHS),
            "spatial_transformer_attn_type": "softmax-xformers",
            "legacy": False,
        },
    }


def _first_stage(vae: Any) -> dict[str, Any]:
    """vae: the config of diffusers' VAE."""
    base = vae.block_out_channels[0]
    return {
        "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
        "params": {
            "embed_dim": 4,
            "monitor": "val/rec_loss",
            "ddconfig": {
                "attn_type": "vanilla-xformers",
                "double_z": True,
                "z_channels": 4,
                "resolution": RESOLUTION,
                "in_channels": 3,
                "out_ch": 3,
                "ch": base,
                "ch_mult": [width // base for width in vae.block_out_channels],
                "num_res_blocks": vae.layers_per_block,
                "attn_resolutions": [],
                "dropout": 0.0,
            },
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }


def _conditioner() -> dict[str, Any]:
    """The names of the text encoders are of no size that a host knows: reForge and forge-classic
    must be told (tests/hosts/helper/scripts/small_models.py)."""
    encoders = "sgm.modules.encoders.modules"
    sizes = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    return {
        "target": "sgm.modules.GeneralConditioner",
        "params": {
            "emb_models": [
                {
                    "is_trainable": False,
                    "input_key": "txt",
                    "target": f"{encoders}.FrozenCLIPEmbedder",
                    "params": {"layer": "hidden", "layer_idx": 1, "version": "unziplora-mini-clip"},
                },
                {
                    "is_trainable": False,
                    "input_key": "txt",
                    "target": f"{encoders}.FrozenOpenCLIPEmbedder2",
                    "params": {
                        "arch": "unziplora-mini",
                        "version": "none",
                        "freeze": True,
                        "layer": "penultimate",
                        "always_return_pooled": True,
                        "legacy": False,
                    },
                },
                *(
                    {
                        "is_trainable": False,
                        "input_key": key,
                        "target": f"{encoders}.ConcatTimestepEmbedderND",
                        "params": {"outdim": TIME_ID_WIDTH},
                    }
                    for key in sizes
                ),
            ]
        },
    }


def write_folder(file: Path, folder: Path) -> None:
    """The same model as a diffusers folder."""
    found = identify(file)
    parts = open_checkpoint(found)
    cpu = torch.device("cpu")
    unet, vae = parts.unet(cpu, torch.float16), parts.vae(cpu).half()
    unet.register_to_config(sample_size=found.defaults.resolution // 8)
    first, second = parts.text_encoders(cpu, torch.float16)
    tokenizer, tokenizer_2 = tokenizers()
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=found.prediction_type,
    )
    pipeline = StableDiffusionXLPipeline(
        vae, first, second, tokenizer, tokenizer_2, unet, scheduler
    )
    pipeline.save_pretrained(folder)
    index = folder / "model_index.json"
    entries = {**json.loads(index.read_text("utf-8")), f"_{DEFAULTS}": json.dumps(TRAINING)}
    index.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--out", type=Path, help="folder for mini.safetensors and mini.yaml")
    parser.add_argument("--from", type=Path, dest="file")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    file = arguments.file
    if arguments.run_dir is not None:
        file = (arguments.out or arguments.run_dir) / "mini.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(*trained(arguments.run_dir), file)
    if file is None:
        parser.error("name --run-dir or --from")
    if arguments.folder is not None:
        write_folder(file, arguments.folder)
    print(file, f"{file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
