"""LoRA files as other programs write them, and what each adds to the weights, by plain formulas."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unziplora.unet.layer_names import sgm_name
from unziplora.unet.module_table import inverse, rename, unet_table

RANK, ALPHA = 4, 2.0
Tensors = dict[str, Tensor]
Pairs = Mapping[str, tuple[Tensor, Tensor]]  # down, up by diffusers' module name


@dataclass
class Made:
    """A file's tensors and header; deltas: what it adds, by diffusers' module name below the UNet,
    or with te1: or te2: before a text encoder's."""

    tensors: Tensors
    deltas: Tensors
    metadata: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        save_file({k: t.contiguous() for k, t in self.tensors.items()}, path, self.metadata)
        return path


def linears(unet: nn.Module, *ends: str) -> dict[str, nn.Linear]:
    """Linear layers whose name ends so; without ends the attention's projections."""
    ends = ends or ("to_q", "to_k", "to_v", "to_out.0")
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(ends)
    }


def convolutions(unet: nn.Module) -> dict[str, nn.Conv2d]:
    return {n: m for n, m in unet.named_modules() if isinstance(m, nn.Conv2d)}


def pairs(modules: Mapping[str, Any], rank: int | None = RANK, seed: int = 0) -> Pairs:
    """Random factors of each module; rank None: another one for each."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    made = {}
    for number, (name, module) in enumerate(modules.items()):
        r = rank or 1 + number % 7
        outputs, *inputs = module.weight.shape
        made[name] = random(r, *inputs), random(outputs, r, *[1] * (len(inputs) - 1))
    return made


def dense(down: Tensor, up: Tensor, scale: float) -> Tensor:
    product = scale * up.flatten(1).double() @ down.flatten(1).double()
    return product.reshape(len(up), *down.shape[1:])


def deltas(of: Pairs, scale: float) -> Tensors:
    return {name: dense(down, up, scale) for name, (down, up) in of.items()}


def sgm(name: str) -> str:
    """sgm's name of any module of an SDXL UNet in diffusers' layout."""
    if ".transformer_blocks." in name:
        return sgm_name(name)
    return rename(f"{name}.weight", inverse(unet_table(3, 2, {1, 2}))).removesuffix(".weight")


def flat(name: str) -> str:
    return name.replace(".", "_")


def kohya(of: Pairs, name: Callable[[str], str] = sgm, alpha: float | None = ALPHA) -> Tensors:
    tensors = {}
    for module, (down, up) in of.items():
        key = f"lora_unet_{flat(name(module))}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def suffixed(of: Pairs, template: str, down: str, up: str, name: Callable[[str], str] = str,
             alpha: str | None = None) -> Tensors:  # fmt: skip
    tensors = {}
    for module, (a, b) in of.items():
        key = template.format(name(module))
        tensors |= {f"{key}.{down}": a, f"{key}.{up}": b}
        if alpha is not None:
            tensors[f"{key}.{alpha}"] = torch.tensor(ALPHA)
    return tensors


def processor(of: Pairs) -> Tensors:
    """diffusers up to 0.21."""
    tensors = {}
    for module, (down, up) in of.items():
        attention, _, projection = module.removesuffix(".0").rpartition(".")
        key = f"unet.{attention}.processor.{projection}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    return tensors


A, B = "lora_A.weight", "lora_B.weight"
# By program: how it writes factors, and the scale that it means.
LAYOUTS: dict[str, tuple[Callable[[Pairs], Tensors], float]] = {
    "kohya, sgm names": (kohya, ALPHA / RANK),
    "kohya, diffusers names": (lambda p: kohya(p, str), ALPHA / RANK),
    "kohya without alpha": (lambda p: kohya(p, alpha=None), 1.0),
    "kohya, 1 x 1 convolutions": (
        lambda p: kohya({n: (d[:, :, None, None], u[:, :, None, None]) for n, (d, u) in p.items()}),
        ALPHA / RANK,
    ),
    "diffusers with peft": (lambda p: suffixed(p, "unet.{}", A, B), 1.0),
    "diffusers, linear layer": (
        lambda p: suffixed(
            p, "unet.{}.lora_linear_layer", "down.weight", "up.weight"
        ), 1.0,
    ),
    "diffusers, B-LoRA": (lambda p: suffixed(p, "unet.{}.lora", "down.weight", "up.weight"), 1.0),
    "diffusers, processors": (processor, 1.0),
    "peft": (lambda p: suffixed(p, "base_model.model.{}", A, B), 1.0),
    "peft in a pipeline": (lambda p: suffixed(p, "base_model.model.unet.{}", A, B), 1.0),
    "diffusers, an adapter's name": (
        lambda p: suffixed(p, "unet.{}", "lora_A.default.weight", "lora_B.default.weight"), 1.0,
    ),
    "peft, bare": (lambda p: suffixed(p, "{}", A, B), 1.0),
    "ComfyUI, lora_up": (
        lambda p: suffixed(
            p, "diffusion_model.{}", "lora_down.weight", "lora_up.weight", sgm, "alpha"
        ), ALPHA / RANK,
    ),
    "ComfyUI, lora_A": (
        lambda p: suffixed(p, "diffusion_model.{}", A, B, sgm, "alpha"), ALPHA / RANK,
    ),
    "OneTrainer": (
        lambda p: suffixed(
            p, "lora_unet.{}", "lora_down.weight", "lora_up.weight", str, "alpha"
        ), ALPHA / RANK,
    ),
    "OneTrainer, OMI": (
        lambda p: suffixed(
            p, "unet.{}", "lora_down.weight", "lora_up.weight", sgm, "alpha"
        ), ALPHA / RANK,
    ),
}  # fmt: skip


def peft_header(**values: Any) -> dict[str, str]:
    """As diffusers writes it from 0.34 on."""
    said = {"r": RANK, "lora_alpha": ALPHA, "rank_pattern": {}, "alpha_pattern": {}, **values}
    flat_values = {f"unet.{key}": value for key, value in said.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(flat_values)}


def _of_modules(
    modules: Mapping[str, Any], make: Callable[[Tensor, Callable[..., Tensor]], tuple[Tensors, Any]]
) -> Made:
    """make: of a weight, its tensors by ending, and what is added to it."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    made = Made({}, {})
    for name, module in modules.items():
        tensors, delta = make(module.weight.detach(), random)
        made.tensors |= {f"lora_unet_{flat(sgm(name))}.{end}": t for end, t in tensors.items()}
        made.deltas[name] = delta
    return made


def loha(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs = weight.shape
        t = {f"hada_w{n}_{x}": random(*shape) for n in (1, 2)
             for x, shape in (("a", (out, RANK)), ("b", (RANK, inputs)))}  # fmt: skip
        t["alpha"] = torch.tensor(ALPHA)
        one, other = (t[f"hada_w{n}_a"] @ t[f"hada_w{n}_b"] for n in (1, 2))
        return t, ALPHA / RANK * one * other

    return _of_modules(linears(unet), make)


def loha_conv(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs, h, w = weight.shape
        t = {f"hada_w{n}_a": random(RANK, out) for n in (1, 2)}
        t |= {f"hada_w{n}_b": random(RANK, inputs) for n in (1, 2)}
        t |= {f"hada_t{n}": random(RANK, RANK, h, w) for n in (1, 2)}
        one, other = (
            torch.einsum("pqhw,po,qi->oihw", t[f"hada_t{n}"], t[f"hada_w{n}_a"], t[f"hada_w{n}_b"])
            for n in (1, 2)
        )
        return t, one * other

    return _of_modules(convolutions(unet), make)


def lokr(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs = weight.shape
        t = {"lokr_w1": random(4, 4), "lokr_w2_a": random(out // 4, RANK),
             "lokr_w2_b": random(RANK, inputs // 4), "alpha": torch.tensor(ALPHA)}  # fmt: skip
        return t, ALPHA / RANK * torch.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])

    return _of_modules(linears(unet), make)


def lokr_whole(unet: nn.Module) -> Made:
    """Both factors whole: then alpha means nothing."""

    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs, h, w = weight.shape
        t = {"lokr_w1": random(2, 2), "lokr_w2": random(out // 2, inputs // 2, h, w),
             "alpha": torch.tensor(ALPHA)}  # fmt: skip
        return t, torch.kron(t["lokr_w1"][:, :, None, None], t["lokr_w2"])

    even = {n: m for n, m in convolutions(unet).items() if not m.weight.shape[0] % 2}
    return _of_modules(even, make)


def full(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        t = {"diff": random(*weight.shape)}
        return t, t["diff"]

    return _of_modules(linears(unet), make)


def glora(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs = weight.shape
        t = {"a1.weight": random(RANK, inputs), "a2.weight": random(inputs, RANK),
             "b1.weight": random(RANK, inputs), "b2.weight": random(out, RANK),
             "alpha": torch.tensor(float(RANK))}  # fmt: skip
        a = weight @ t["a2.weight"] @ t["a1.weight"]
        return t, a + t["b2.weight"] @ t["b1.weight"]

    return _of_modules(linears(unet), make)


def glora_conv(unet: nn.Module) -> Made:
    """LyCORIS's: A mixes the input channels of each place of the kernel alike."""

    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs, h, w = weight.shape
        t = {"a1.weight": random(inputs, RANK, 1, 1), "a2.weight": random(RANK, inputs, 1, 1),
             "b1.weight": random(out, RANK, 1, 1), "b2.weight": random(RANK, inputs, h, w),
             "alpha": torch.tensor(ALPHA)}  # fmt: skip
        a = t["a1.weight"].flatten(1) @ t["a2.weight"].flatten(1)
        b = t["b1.weight"].flatten(1) @ t["b2.weight"].flatten(1)
        change = torch.einsum("oihw,ij->ojhw", weight, a) + b.reshape(weight.shape)
        return t, ALPHA / RANK * change

    return _of_modules(convolutions(unet), make)


def oft(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        count, size = 4, weight.shape[0] // 4
        blocks = random(count, size, size)
        rotated = []
        for block, rows in zip(blocks, weight.chunk(count), strict=True):
            skew = (block - block.T).double()
            eye = torch.eye(size).double()
            rotated.append(((eye + skew) @ torch.linalg.inv(eye - skew)).T @ rows.double())
        return {"oft_blocks": blocks}, torch.cat(rotated) - weight

    return _of_modules(linears(unet), make)


def ia3(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        t = {"weight": random(weight.shape[0]), "on_input": torch.tensor(False)}
        return t, weight * t["weight"][:, None]

    return _of_modules(linears(unet, "to_k", "to_v"), make)


def dora(unet: nn.Module) -> Made:
    """kohya's and LyCORIS's: the norm of each input's weights."""

    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs = weight.shape
        down, up, m = random(RANK, inputs), random(out, RANK), 1 + random(1, inputs)
        v = weight + ALPHA / RANK * up @ down
        t = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA),
             "dora_scale": m}  # fmt: skip
        return t, m * v / v.norm(dim=0, keepdim=True) - weight

    return _of_modules(linears(unet), make)


def dora_peft(unet: nn.Module) -> Made:
    """peft's: the norm of each output's weights."""
    of = pairs(linears(unet))
    made = Made(suffixed(of, "unet.{}", A, B), {})
    for name, module in linears(unet).items():
        down, up = of[name]
        v = module.weight.detach() + up @ down
        m = v.norm(dim=1) + torch.linspace(0.1, 0.5, len(v))
        made.tensors[f"unet.{name}.lora_magnitude_vector.weight"] = m
        made.deltas[name] = (m / v.norm(dim=1))[:, None] * v - module.weight.detach()
    return made


def locon(unet: nn.Module) -> Made:
    """Every linear layer and every convolution."""
    modules = {**linears(unet), **linears(unet, "net.0.proj", "net.2", "proj_in", "proj_out"),
               **linears(unet, "linear_1", "linear_2", "time_emb_proj"),
               **convolutions(unet)}  # fmt: skip
    of = pairs(modules)
    return Made(kohya(of), deltas(of, ALPHA / RANK))


def tucker(unet: nn.Module) -> Made:
    def make(weight: Tensor, random: Callable[..., Tensor]) -> tuple[Tensors, Tensor]:
        out, inputs, h, w = weight.shape
        t = {"lora_down.weight": random(RANK, inputs, 1, 1),
             "lora_mid.weight": random(RANK, RANK, h, w),
             "lora_up.weight": random(out, RANK, 1, 1), "alpha": torch.tensor(ALPHA)}  # fmt: skip
        up, down = t["lora_up.weight"].flatten(1), t["lora_down.weight"].flatten(1)
        change = torch.einsum("nmhw,on,mi->oihw", t["lora_mid.weight"], up, down)
        return t, ALPHA / RANK * change

    return _of_modules(convolutions(unet), make)


KINDS: dict[str, Callable[[nn.Module], Made]] = {
    "LoHa": loha, "LoHa of convolutions": loha_conv, "LoKr": lokr, "LoKr, whole": lokr_whole,
    "full difference": full, "GLoRA": glora,
    "GLoRA of convolutions": glora_conv, "OFT": oft, "(IA)^3": ia3, "LoRA with DoRA": dora,
    "LoRA with peft's DoRA": dora_peft, "LoCon": locon, "LoCon with a Tucker core": tucker,
}  # fmt: skip
