"""What kohya's scripts add to an SDXL UNet's weights with LoRA files, and files that they write.

    python apply_with_kohya.py SCRIPTS REQUESTS

REQUESTS: JSON with `unet` (a file of a narrow SDXL UNet's weights by sgm's names) and `jobs`, each
with `how`, `files`, `weights` and `out`:

- apply: hooks of networks/lora.py; merge: its merge_to; bake: sdxl_merge_lora.py into the model.
  `out` gets the change of each weight.
- combine: sdxl_merge_lora.py's file of several LoRAs, to `out`.
- write lora, write oft: a random network, saved to `out` as they save one after training; its
  changes go to `out` with .deltas before the ending.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def main(scripts: str, requests: str) -> None:
    sys.path[:0] = [scripts, f"{scripts}/networks"]
    with open(requests, encoding="utf-8") as file:
        wanted = json.load(file)
    weights = load_file(wanted["unet"])
    for job in wanted["jobs"]:
        JOBS[job["how"]](weights, job)


def network_of(weights):
    """kohya's UNet at the width of these weights."""
    from library import sdxl_original_unet as module

    width = weights["input_blocks.0.0.weight"].shape[0]
    module.MODEL_CHANNELS = width
    module.TIME_EMBED_DIM = weights["time_embed.0.weight"].shape[0]
    module.ADM_IN_CHANNELS = weights["label_emb.0.0.weight"].shape[1]
    key = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    real = module.Transformer2DModel

    def narrow(**given):  # the width of the text is written out in the code
        return real(**{**given, "cross_attention_dim": weights[key].shape[1]})

    module.Transformer2DModel = narrow
    try:
        unet = module.SdxlUNet2DConditionModel()
    finally:
        module.Transformer2DModel = real
    unet.load_state_dict(weights)
    return unet.requires_grad_(False)


def changes(before, after):
    found = {k: (after[k] - t).contiguous() for k, t in before.items() if t.dim() in (2, 4)}
    return {k: change for k, change in found.items() if change.any()}


def merge(weights, job) -> None:
    import lora

    unet = network_of(weights)
    for path, weight in zip(job["files"], job["weights"], strict=True):
        network, tensors = lora.create_network_from_weights(
            weight, path, None, nn.Module(), unet, for_inference=True
        )
        network.merge_to(nn.Module(), unet, tensors, torch.float32, "cpu")
    save_file(changes(weights, unet.state_dict()), job["out"])


def apply(weights, job) -> None:
    """From the outputs for a basis of the inputs, so that it is what the hooked layers compute."""
    import lora

    unet = network_of(weights)
    for path, weight in zip(job["files"], job["weights"], strict=True):
        network, tensors = lora.create_network_from_weights(
            weight, path, None, nn.Module(), unet, for_inference=True
        )
        network.apply_to(nn.Module(), unet, False, True)
        missing = network.load_state_dict(tensors, strict=False)
        if missing.missing_keys or missing.unexpected_keys:
            raise SystemExit(f"keys that do not match: {missing}")
        network.requires_grad_(False)
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and "transformer_blocks" in name:
            basis = torch.eye(module.in_features)
            plain = nn.functional.linear(basis, module.weight, module.bias)
            found[f"{name}.weight"] = (module(basis) - plain).T.contiguous()
    save_file({k: t for k, t in found.items() if t.any()}, job["out"])


def bake(weights, job) -> None:
    import sdxl_merge_lora

    unet = network_of(weights)
    texts = nn.Module(), nn.Module()
    sdxl_merge_lora.merge_to_sd_model(*texts, unet, job["files"], job["weights"], [], torch.float32)
    save_file(changes(weights, unet.state_dict()), job["out"])


def combine(weights, job) -> None:
    import sdxl_merge_lora

    tensors, metadata = sdxl_merge_lora.merge_lora_models(
        job["files"], job["weights"], [], torch.float32, concat=True
    )
    tensors = {k: t.contiguous() for k, t in tensors.items()}
    sdxl_merge_lora.save_to_file(job["out"], tensors, metadata)


def write_lora(weights, job) -> None:
    import lora

    write(weights, job, lora, conv_dim=2, conv_alpha=1)


def write_oft(weights, job) -> None:
    import oft

    write(weights, job, oft, enable_all_linear=True)


def write(weights, job, kind, **arguments) -> None:
    unet = network_of(weights)
    network = kind.create_network(1.0, 4, job["alpha"], None, nn.Module(), unet, **arguments)
    network.apply_to(nn.Module(), unet, False, True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    network.save_weights(job["out"], None, {"ss_network_module": kind.__name__})
    plain = network_of(weights)
    again, tensors = kind.create_network_from_weights(
        1.0, job["out"], None, nn.Module(), plain, for_inference=True
    )
    again.merge_to(nn.Module(), plain, tensors, torch.float32, "cpu")
    save_file(
        changes(weights, plain.state_dict()),
        job["out"].removesuffix(".safetensors") + ".deltas.safetensors",
    )


JOBS = {
    "apply": apply,
    "merge": merge,
    "bake": bake,
    "combine": combine,
    "write lora": write_lora,
    "write oft": write_oft,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
