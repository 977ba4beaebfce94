"""Reading anyone's LoRA file into layers by sgm name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.lora.write import LoraLayer
from unziplora.unet.layer_names import sgm_name

TEXT_ENCODERS = ("lora_te", "text_encoder")  # how the names of their modules begin

# The two matrices and their scale, in the words of kohya, of peft, and of diffusers before peft.
_PART = re.compile(
    r"(?:\.lora_(?P<kohya>down|up)\.weight|\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight"
    r"|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<early>down|up)\.weight|\.(?P<alpha>alpha))"
)
_KINDS = {
    "hada_w": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_mid": "LoCon with Tucker decomposition",
}
# An attention projection below the UNet; in kohya's names all dots are underscores.
_LAYER = re.compile(
    r"(?:base_model\.model\.|model\.)?(?:unet\.|lora_unet_|diffusion_model\.)?"
    r"(?P<group>(?:in|out)put_blocks[._]\d+[._]1|middle_block[._]1"
    r"|(?:down|up)_blocks[._]\d+[._]attentions[._]\d+|mid_block[._]attentions[._]\d+)"
    r"[._]transformer_blocks[._](?P<block>\d+)[._](?P<attention>attn[12])(?:\.processor)?"
    r"[._](?P<projection>to_[qkv]|to_out)(?:[._]0)?"
)


@dataclass(frozen=True)
class LoraFile:
    """layers: attention projections of the UNet, by sgm name. others: how many modules of other
    kinds there are, by kind. unet_modules: modules of the UNet, of any kind. kind: the names'
    style. metadata: the file's header."""

    path: Path
    layers: Mapping[str, LoraLayer]
    others: Mapping[str, int]
    unet_modules: int
    kind: str
    metadata: Mapping[str, str]


def read_lora(path: Path) -> LoraFile:
    """Raises InvalidInput for what is no LoRA in a .safetensors file."""
    try:
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r}. Check the name.")
        with safe_open(path, framework="pt") as file:
            modules, others = _modules(path, file.keys())
            res_blocks = _res_blocks(modules)
            layers = {}
            for name, keys in modules.items():
                layer = _sgm_layer(name, res_blocks)
                # copied: what is read must not change with the file
                parts = {p: file.get_tensor(k).clone() for p, k in keys.items() if layer}
                if layer is None or not _is_matrix_pair(parts):
                    others[_what(name)] += 1
                    continue
                rank = parts["down"].shape[0]
                alpha = float(parts["alpha"]) if "alpha" in parts else float(rank)
                layers[layer] = LoraLayer(parts["down"], parts["up"], alpha)
            return LoraFile(
                path=path,
                layers=layers,
                others=dict(others),
                unet_modules=sum(not name.startswith(TEXT_ENCODERS) for name in modules),
                kind=_style(modules),
                metadata=dict(file.metadata() or {}),
            )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"{path.name!r} is not a whole .safetensors file. "
            "Download it again; a pickle (.pt, .ckpt) is never opened."
        ) from error


def _modules(path: Path, keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], Counter[str]]:
    """The keys of `down`, `up` and `alpha` by module, and how many there are of other kinds."""
    modules: dict[str, dict[str, str]] = {}
    others: Counter[str] = Counter()
    for key in keys:
        match = _PART.search(key)
        if match is None or match.end() != len(key):
            kind = next((k for mark, k in _KINDS.items() if mark in key), "unknown")
            others[f"{kind} tensors"] += 1
            continue
        part = match["kohya"] or match["early"] or match["alpha"]
        part = part or {"A": "down", "B": "up"}[match["peft"]]
        modules.setdefault(key[: match.start()], {})[part] = key
    if not modules and not others.keys() - {"unknown tensors"}:
        raise InvalidInput(
            f"{path.name} is not a LoRA: it has no lora_down and lora_up tensors. "
            "Choose a LoRA's .safetensors file."
        )
    return modules, others


def _sgm_layer(name: str, res_blocks: int) -> str | None:
    """The sgm name of an attention projection in any of the styles, or None."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return None
    group = re.sub(r"[._](?=\d|attentions)|(?<=\d)[._]", ".", match["group"])
    projection = "to_out.0" if match["projection"] == "to_out" else match["projection"]
    dotted = f"{group}.transformer_blocks.{match['block']}.{match['attention']}.{projection}"
    return sgm_name(dotted, res_blocks)


def _res_blocks(modules: Iterable[str]) -> int:
    """Residual blocks a level, for diffusers' names: one where a level has one group on the way
    down and two on the way up (KOALA). Where too few layers are there to tell, SDXL's two."""
    groups = re.findall(r"(down|up)_blocks[._]\d+[._]attentions[._](\d+)", " ".join(modules))
    down = {int(j) for side, j in groups if side == "down"}
    up = {int(j) for side, j in groups if side == "up"}
    return 1 if down == {0} and up <= {0, 1} else 2


def _is_matrix_pair(parts: Mapping[str, Tensor]) -> bool:
    if not {"down", "up"} <= parts.keys():
        return False
    down, up = parts["down"], parts["up"]
    whole_alpha = "alpha" not in parts or parts["alpha"].numel() == 1
    matrices = down.dim() == up.dim() == 2 and down.is_floating_point() and up.is_floating_point()
    return matrices and down.shape[0] == up.shape[1] > 0 and whole_alpha


def _what(name: str) -> str:
    if name.startswith(TEXT_ENCODERS):
        return "text encoder modules"
    return "other modules"


def _style(modules: Mapping[str, object]) -> str:
    name = next(iter(modules), "")
    if name.startswith("lora_"):
        sgm = any("put_blocks_" in module or "middle_block" in module for module in modules)
        return "kohya, sgm names" if sgm else "kohya, diffusers names"
    return "diffusers" if name else "not a plain LoRA"
