"""What a version of diffusers adds to a UNet's attention projections with LoRA files.

    python apply_with_diffusers.py REQUESTS

REQUESTS: JSON with `config` (of the UNet), `unet` (a file of its weights) and `jobs`, each with
`files`, `weights` and `out`, which gets the change of each weight, from the outputs for a basis of
the inputs.
"""

import json
import sys

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import nn

ENDS = ("to_q", "to_k", "to_v", "to_out.0")


def main(requests: str) -> None:
    with open(requests, encoding="utf-8") as file:
        wanted = json.load(file)
    for job in wanted["jobs"]:
        unet = UNet2DConditionModel.from_config(wanted["config"])
        unet.load_state_dict(load_file(wanted["unet"]))
        layers = {n: m for n, m in unet.named_modules() if n.endswith(ENDS)}
        before = {name: effective(layer) for name, layer in layers.items()}
        pipeline = StableDiffusionXLPipeline(
            vae=AutoencoderKL(),  # older versions ask it for its scale
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler(),
            add_watermarker=False,
        )
        names = [f"lora{number}" for number, _ in enumerate(job["files"])]
        for name, path in zip(names, job["files"], strict=True):
            pipeline.load_lora_weights(load_file(path), adapter_name=name)
        unet.set_adapters(names, job["weights"])  # the pipeline's wants text encoders
        now = {name: unet.get_submodule(name) for name in layers}
        found = {name: effective(layer) - before[name] for name, layer in now.items()}
        found = {f"{k}.weight": t.contiguous() for k, t in found.items() if t.any()}
        save_file(found, job["out"])


@torch.no_grad()
def effective(layer: nn.Module) -> torch.Tensor:
    """The weight as an input sees it."""
    basis = torch.eye(layer.in_features)
    zero = torch.zeros(1, layer.in_features)
    return (layer(basis) - layer(zero)).T


if __name__ == "__main__":
    main(sys.argv[1])
