"""What a tensor's name in a LoRA file says: which module it changes, and which part of it it is.

Programs name one layer in a dozen ways. All meet in a `Target`: sgm's name below the UNet, or
transformers' name below a text encoder. In kohya's names dots are underscores, which cannot be read
back by themselves; so names are looked up, without dots, in a table of all that such networks have.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from unziplora.unet.layer_names import PROJECTIONS
from unziplora.unet.module_table import unet_table

Network = Literal["unet", "te1", "te2"]


class Target(NamedTuple):
    """A module of a network. te1: CLIP-L, te2: OpenCLIP bigG."""

    network: Network
    module: str


class Key(NamedTuple):
    """A tensor's name, taken apart. module: as the file has it, without the network's name."""

    network: Network
    module: str
    part: str


_LEVELS = 4  # SD 1 and 2 have four; they are read to be named
_DEEPEST = 24  # transformer blocks in a group; SDXL has 10
_BLOCK = (
    *(f"{attention}.{p}" for attention in ("attn1", "attn2") for p in PROJECTIONS),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)
_GROUP = (
    *("norm", "proj_in", "proj_out"),
    *(f"transformer_blocks.{k}.{name}" for k in range(_DEEPEST) for name in _BLOCK),
)

# How names begin. A wrapper says nothing of the network; without any name it is the UNet.
_WRAPPERS = ("base_model.model.", "model.")
_NETWORKS: tuple[tuple[str, Network], ...] = (
    ("diffusion_model.", "unet"),
    ("lora_unet_", "unet"),
    ("lora_unet.", "unet"),
    ("oft_unet_", "unet"),
    ("lycoris_", "unet"),
    ("unet.", "unet"),
    ("lora_te1_", "te1"),
    ("lora_te1.", "te1"),
    ("lora_te_", "te1"),
    ("oft_te1_", "te1"),
    ("lora_te2_", "te2"),
    ("lora_te2.", "te2"),
    ("oft_te2_", "te2"),
    ("text_encoder.", "te1"),
    ("text_encoder_2.", "te2"),
    ("text_encoders.clip_l.", "te1"),
    ("text_encoders.clip_g.", "te2"),
    ("clip_l.", "te1"),
    ("clip_g.", "te2"),
)
# Whose names a file has, by how those of the UNet begin.
_PROGRAMS = {
    "lora_unet.": "OneTrainer",
    "lora_unet_": "kohya",
    "oft_unet_": "kohya",
    "lycoris_": "LyCORIS",
    "diffusion_model.": "ComfyUI",
}
_SGM_NAME = re.compile("put_blocks|middle_block")
_PEFT_TENSOR = re.compile("lora_A|lora_B|magnitude")
# How they end: kohya and LyCORIS; peft, with or without an adapter's name; diffusers before peft.
_PART = re.compile(
    r"(?:\.lora_(?P<kohya>down|up|mid)\.weight"
    r"|\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight"
    r"|\.(?P<bias>lora_B)(?:\.[^.]+)?\.bias"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?"
    r"|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<early>down|up)\.weight"
    r"|\.(?P<glora>[ab][12])\.weight"
    r"|\.(?P<plain>alpha|scale|dora_scale|diff|diff_b|w_norm|b_norm|hada_w[12]_[ab]|hada_t[12]"
    r"|lokr_w[12](?:_[ab])?|lokr_t2|oft_blocks|oft_diag|rescale|on_input)(?:\.default)?"
    r"|\.(?P<own>weight))\Z"
)
_TEXT_LAYER = re.compile(
    r"(?:transformer_)?(?:text_model_)?encoder_layers_(?P<number>\d+)_(?P<rest>\w+)"
)
_TEXT_RESTS = {
    **{f"self_attn_{p}_proj": f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")},
    **{f"self_attn_to_{p}": f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")},
    **{name: name.replace("_", ".", 1) for name in ("mlp_fc1", "mlp_fc2")},
    **{name: name for name in ("layer_norm1", "layer_norm2")},
}
_TEXT_REST_OF_MODEL = {
    "text_projection": "text_projection",
    "text_model_final_layer_norm": "text_model.final_layer_norm",
}


def parse_key(key: str) -> Key | None:
    """Network, module and part of a tensor's name; None where it ends in no known way."""
    match = _PART.search(key)
    if match is None:
        return None
    part = match["kohya"] or match["early"] or match["glora"] or match["plain"] or match["own"]
    if match["bias"]:
        part = "up_bias"
    elif match["peft"]:
        part = {"A": "down", "B": "up"}[match["peft"]]
    network, module = _split_network(key[: match.start()])
    return Key(network, module, part or "magnitude")


def _split_network(name: str) -> tuple[Network, str]:
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, stripped = name.removeprefix(wrapper), True
    for begins, network in _NETWORKS:
        if name.startswith(begins):
            return network, name.removeprefix(begins)
    return "unet", name


def target_of(network: Network, module: str, res_blocks: int) -> Target | None:
    """The module that a name in a file means; None for what no network of SDXL's kind has.

    res_blocks: residual blocks a level, for diffusers' names.
    """
    flat = module.replace(".", "_")
    if network == "unet":
        found = _unet_names(res_blocks).get(flat.replace("_processor_", "_"))
    else:
        found = _text_name(flat)
    return None if found is None else Target(network, found)


def res_blocks_of(modules: Iterable[str]) -> int:
    """Residual blocks a level, of UNet modules in diffusers' names: one where several levels have
    one group on the way down and two on the way up, and none is deeper, as KOALA's. Where too few
    layers are there to tell, SDXL's two."""
    text = " ".join(modules)
    found = re.findall(r"(down|up)_blocks[._](\d+)[._](?:attentions|resnets)[._](\d+)", text)
    down = {level for side, level, _ in found if side == "down"}
    places = {side: {int(j) for other, _, j in found if other == side} for side in ("down", "up")}
    blocks = [int(k) for k in re.findall(r"transformer_blocks[._](\d+)", text)]
    koala = places["down"] == {0} and places["up"] <= {0, 1} and max(blocks, default=0) < 6
    return 1 if koala and len(down) > 1 else 2


def layout_of(keys: Mapping[str, Key]) -> str:
    """Whose way of naming this is."""
    first = next((name for name, key in keys.items() if key.network == "unet"), None)
    if first is None:
        return "text encoders only" if keys else "unknown"
    sgm = any(_SGM_NAME.search(key.module) for key in keys.values())
    for prefix, program in _PROGRAMS.items():
        if first.startswith(prefix):
            return f"{program}, {'sgm' if sgm else 'diffusers'} names"
    if not first.startswith("unet."):
        return "peft"
    if sgm:
        return "OneTrainer, sgm names"
    return "diffusers, peft's tensors" if _PEFT_TENSOR.search(first) else "diffusers, before peft"


@lru_cache(maxsize=2)
def _unet_names(res_blocks: int) -> Mapping[str, str]:
    """sgm's name of a module by its name in either layout, dots made underscores."""
    names = {}
    for blocks in (1, 2):
        for sgm, diffusers in unet_table(_LEVELS, blocks, range(_LEVELS)).items():
            # sgm's names say by themselves which module they mean
            layouts = (sgm, diffusers) if blocks == res_blocks else (sgm,)
            endings = [f".{name}" for name in _GROUP] if "attentions" in diffusers else [""]
            for layout, ending in itertools.product(layouts, endings):
                flat = f"{layout}{ending}".replace(".", "_")
                names[flat] = f"{sgm}{ending}"
                if flat.endswith("to_out_0"):  # diffusers before peft left the 0 out
                    names[flat.removesuffix("_0")] = f"{sgm}{ending}"
    return names


def _text_name(flat: str) -> str | None:
    if (match := _TEXT_LAYER.fullmatch(flat)) is not None:
        rest = _TEXT_RESTS.get(match["rest"])
        return f"text_model.encoder.layers.{int(match['number'])}.{rest}" if rest else None
    return _TEXT_REST_OF_MODEL.get(flat.removeprefix("transformer_"))
