"""LoRA files that LyCORIS itself writes, and what LyCORIS itself adds to the weights with them.

    python write_with_lycoris.py WEIGHTS FOLDER

WEIGHTS: tensors by kohya's module names. Writes KIND.safetensors and KIND.deltas.safetensors for
each of KINDS.
"""

import sys
from pathlib import Path

# By kind: LyCORIS's class, its arguments, and the dimensions of the weights that it is tried on.
KINDS = {
    "LoCon": ("LoConModule", {}, (2, 4)),
    "LoCon, Tucker": ("LoConModule", {"use_tucker": True}, (4,)),
    "LoCon, scalar": ("LoConModule", {"use_scalar": True}, (2, 4)),
    "LoCon, rank-stabilised": ("LoConModule", {"rs_lora": True}, (2, 4)),
    "DoRA by output": ("LoConModule", {"weight_decompose": True, "wd_on_out": True}, (2, 4)),
    "DoRA by input": ("LoConModule", {"weight_decompose": True, "wd_on_out": False}, (2, 4)),
    "LoHa": ("LohaModule", {}, (2, 4)),
    "LoHa, Tucker": ("LohaModule", {"use_tucker": True}, (4,)),
    "LoHa, rank-stabilised": ("LohaModule", {"rs_lora": True}, (2,)),
    "LoHa, DoRA by output": ("LohaModule", {"weight_decompose": True, "wd_on_out": True}, (2, 4)),
    "LoHa, DoRA by input": ("LohaModule", {"weight_decompose": True, "wd_on_out": False}, (2, 4)),
    "LoKr": ("LokrModule", {"factor": 4}, (2, 4)),
    "LoKr, both decomposed": ("LokrModule", {"factor": 16, "decompose_both": True}, (2, 4)),
    "LoKr, full matrices": ("LokrModule", {"factor": 8, "full_matrix": True}, (2, 4)),
    "LoKr, unbalanced": ("LokrModule", {"factor": 4, "unbalanced_factorization": True}, (2, 4)),
    "LoKr, Tucker": ("LokrModule", {"factor": 4, "use_tucker": True}, (4,)),
    "LoKr, DoRA by output": ("LokrModule", {"factor": 4, "weight_decompose": True}, (2, 4)),
    "LoKr, DoRA by input": (
        "LokrModule", {"factor": 4, "weight_decompose": True, "wd_on_out": False}, (2, 4),
    ),
    "full differences": ("FullModule", {}, (2, 4)),
    "norms": ("NormModule", {}, (1,)),
    "GLoRA": ("GLoRAModule", {}, (2, 4)),
    "OFT": ("DiagOFTModule", {"lora_dim": 8}, (2, 4)),
    "OFT, constrained": ("DiagOFTModule", {"lora_dim": 8, "constraint": 0.01}, (2, 4)),
    "OFT, rescaled": ("DiagOFTModule", {"lora_dim": 8, "rescaled": True}, (2, 4)),
    "BOFT": ("ButterflyOFTModule", {"lora_dim": 8}, (2, 4)),
    "BOFT, constrained": ("ButterflyOFTModule", {"lora_dim": 8, "constraint": 0.01}, (2, 4)),
    "BOFT, rescaled": ("ButterflyOFTModule", {"lora_dim": 8, "rescaled": True}, (2, 4)),
    "(IA)^3 on outputs": ("IA3Module", {"train_on_input": False}, (2, 4)),
    "(IA)^3 on inputs": ("IA3Module", {"train_on_input": True}, (2, 4)),
    "DyLoRA": ("DyLoraModule", {"lora_dim": 8, "block_size": 4, "alpha": 8}, (2,)),
}  # fmt: skip


def main(weights_file: str, folder: str) -> None:
    import torch
    from lycoris import modules as lycoris
    from safetensors.torch import load_file, save_file

    weights = load_file(weights_file)
    for kind, (name, arguments, dimensions) in KINDS.items():
        generator = torch.Generator().manual_seed(5)
        # in double, for the change is the difference of two outputs; its rotations need fp32
        torch.set_default_dtype(torch.float32 if "OFT" in name else torch.float64)
        tensors, deltas = {}, {}
        for key, weight in weights.items():
            if weight.dim() not in dimensions:
                continue
            weight = weight.to(torch.get_default_dtype())
            layer = layer_of(weight)
            given = {"lora_dim": 4, "alpha": 3, **arguments}
            module = getattr(lycoris, name)(key, layer, 1.0, **given)
            bias = layer.bias.detach().clone()
            module.apply_to()
            randomise(module, generator)
            own = {end: t.detach().clone() for end, t in module.state_dict().items()}
            tensors |= {f"{key}.{end}": t for end, t in own.items()}
            if kind == "DyLoRA":  # its forward takes a random rank
                now, bias_now = weight + own["lora_up.weight"] @ own["lora_down.weight"], bias
            else:
                now, bias_now = effective(layer, weight)
            deltas[f"{key}.weight"] = now - weight
            if bias_now is not None and (bias_now - bias).abs().max() > 1e-6:
                deltas[f"{key}.bias"] = bias_now - bias
        for found, ending in ((tensors, ""), (deltas, ".deltas")):
            found = {k: t.float().contiguous() for k, t in found.items()}
            save_file(found, f"{folder}/{kind}{ending}.safetensors")


def layer_of(weight):
    import torch
    from torch import nn

    if weight.dim() == 1:
        layer = nn.LayerNorm(len(weight))
    elif weight.dim() == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], padding="same")
    layer.weight = nn.Parameter(weight.clone())
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    return layer


def effective(layer, weight):
    """Weight and bias as an input sees them, from the outputs for a basis of the inputs."""
    import torch

    with torch.no_grad():
        if weight.dim() == 1:  # of a norm: y = w n(x) + b, for two inputs
            one = torch.linspace(-1, 1, len(weight))
            other = -one
            normed = torch.nn.functional.layer_norm(one, (len(weight),))
            y, z = layer(one[None])[0], layer(other[None])[0]
            found = torch.where(normed.abs() > 1e-3, (y - z) / (2 * normed), weight)
            return found, (y + z) / 2
        inputs = weight.shape[1]
        basis = torch.eye(inputs)
        if weight.dim() == 2:
            bias = layer(torch.zeros(1, inputs))[0]
            return (layer(basis) - bias).T, bias
        height, width = weight.shape[2:]
        impulses = torch.zeros(inputs, inputs, height, width)
        impulses[:, :, height // 2, width // 2] = basis
        bias = layer(torch.zeros(1, inputs, height, width))[0, :, 0, 0]
        seen = layer(impulses) - bias[None, :, None, None]
        return seen.transpose(0, 1).flip(2, 3), bias


def randomise(module, generator) -> None:
    """Every parameter moves, as if it had been trained."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(exist_ok=True)
    main(*sys.argv[1:])
