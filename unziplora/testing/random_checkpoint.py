"""Random checkpoints of the family's full topology at any width, for tests and first tries.

They load through the same code as real ones. Tensors are drawn and written one by one, so that one
of SDXL's full size (3.5 billion parameters) is written in little memory.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from unziplora.checkpoints.configs import SIZE_IDS, UNetShape
from unziplora.checkpoints.convert import (
    Importer,
    by_table,
    clip_g_importer,
    clip_l,
    export_sgm,
    vae_importer,
)
from unziplora.checkpoints.hints import DEFAULTS
from unziplora.checkpoints.key_map import CLIP_G, CLIP_L, UNET, VAE
from unziplora.checkpoints.tokenizer import OWN as TOKENIZER
from unziplora.errors import InvalidInput
from unziplora.files import writing
from unziplora.host import PredictionType
from unziplora.unet.architectures import family
from unziplora.unet.module_table import unet_table

_VOCABULARY = 49408
_SIZE_CHANNELS = 256  # of the sinusoids of each size id; fixed in sgm's SDXL config
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Widths:
    """Channels by level of the UNet and the VAE; width and layers of the two text encoders."""

    unet: tuple[int, int, int] = (32, 64, 128)
    vae: tuple[int, ...] = (32, 32, 64, 64)
    text: tuple[int, int] = (32, 32)
    layers: tuple[int, int] = (2, 2)


SMALL = Widths()
FULL = Widths((320, 640, 1280), (128, 256, 512, 512), (768, 1280), (12, 32))


def write_random_model(
    path: str | Path,
    *,
    architecture: str = "sdxl",
    widths: Widths = SMALL,
    seed: int = 0,
    folder: bool = False,
    dtype: torch.dtype = torch.float16,
    prediction_type: PredictionType = "epsilon",
    zero_snr: bool = False,
    vae: bool = True,
    resolution: int = 1024,
) -> Path:
    """Writes a random checkpoint and gives its path back; no tensor is zero.

    architecture: sdxl, ssd-1b, vega, koala-1b or koala-700m; widths: `FULL` for the real size, of
    which SDXL in bf16 is 7 GB; folder: diffusers' layout instead of one file (the same weights for
    the same seed); vae: whether one is in it. Raises InvalidInput for an unknown architecture.
    """
    path = Path(path)
    models = meta_models(architecture, widths, resolution)
    sgm = export_sgm(models["unet"], models["vae"] if vae else None,
                     models["text_encoder"], models["text_encoder_2"])  # fmt: skip
    specs = {name: tuple(tensor.shape) for name, tensor in sgm.items()}
    if folder:
        _write_folder(path, architecture, models, specs, seed, dtype, prediction_type, zero_snr)
        return path
    markers = ["v_pred"] * (prediction_type == "v_prediction") + ["ztsnr"] * zero_snr
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.title": path.stem,
        "modelspec.resolution": f"{resolution}x{resolution}",
        DEFAULTS: json.dumps({"architecture": architecture}),
    }
    tensors = ((name, draw(name, shape, seed, dtype)) for name, shape in specs.items())
    with writing(path) as temporary, temporary.open("wb") as file:
        _write(file, {**specs, **dict.fromkeys(markers, (0,))}, tensors, dtype, metadata)
    return path


def unet_of(architecture: str, widths: Widths) -> UNetShape:
    """The shape of one of the five UNets at these widths."""
    member = family().get(architecture)
    if member is None:
        raise InvalidInput(
            f"There is no architecture {architecture!r}. Choose one of {', '.join(family())}."
        )
    stride = member.res_blocks + 1
    depth = member.groups.get
    return UNetShape(
        widths=widths.unet,
        down=tuple(
            tuple(depth(f"input_blocks.{stride * i + j + 1}.1", 0) for j in range(stride - 1))
            for i in range(3)
        ),
        up=tuple(
            tuple(depth(f"output_blocks.{stride * i + j}.1", 0) for j in range(stride))
            for i in range(3)
        ),
        middle=member.middle,
        context=sum(widths.text),
        vector=widths.text[1] + SIZE_IDS * _SIZE_CHANNELS,
        in_channels=4,
        out_channels=4,
    )


def meta_models(architecture: str, widths: Widths, resolution: int) -> dict[str, Any]:
    """The four models by their folder's name in diffusers, on the meta device."""
    config = unet_of(architecture, widths).config(pooled=widths.text[1])
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(**{**config, "sample_size": resolution // 8}),
            "vae": AutoencoderKL(**_vae_config(widths.vae)),
            "text_encoder": CLIPTextModel(_text_config(widths, 0)),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(widths, 1)),
        }


def _vae_config(widths: tuple[int, ...]) -> dict[str, Any]:
    return {
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    }


def _text_config(widths: Widths, n: int) -> Any:
    width = widths.text[n]
    return CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=widths.layers[n],
        num_attention_heads=max(width // 64, 1),
        projection_dim=width,
        hidden_act=("quick_gelu", "gelu")[n],
        bos_token_id=_VOCABULARY - 2,
        eos_token_id=_VOCABULARY - 1,
        pad_token_id=(_VOCABULARY - 1, 0)[n],
    )


def draw(name: str, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """A random tensor for this sgm name, such that activations stay of order 1."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float32)
    if "embedding" in name:
        values *= 0.5
    elif name.endswith(("bias", "in_proj_bias")):
        values *= 0.02
    elif len(shape) == 1:  # a norm's weight
        values = 1 + 0.05 * values
    else:
        values *= _gain(name) / math.sqrt(math.prod(shape[1:]))
    if name == f"{VAE}quant_conv.weight":  # latents of SDXL's size, and a small variance
        values[: shape[0] // 2] *= 7
        values[shape[0] // 2 :] *= 0.3
    return values.to(dtype)


def _gain(name: str) -> float:
    """Of a weight: less than 1 where a residual branch ends, more behind a SiLU."""
    if name.startswith(VAE):
        return 0.5 if name.endswith(("conv2.weight", "decoder.conv_out.weight")) else 1.0
    if name.endswith(("out_layers.3.weight", "proj_out.weight", "to_out.0.weight", "net.2.weight",
                      "out_proj.weight", "fc2.weight", "c_proj.weight")):  # fmt: skip
        return 0.4
    return 1.7 if name == f"{UNET}out.2.weight" else 1.0


def _write(
    file: BinaryIO,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Writes the safetensors format tensor by tensor; those without numbers need not be given."""
    size = torch.finfo(dtype).bits // 8
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    places, end = {}, 0
    for name, shape in shapes.items():
        places[name] = end
        end += size * math.prod(shape)
        entries[name] = {
            "dtype": _DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [places[name], end],
        }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for name, tensor in tensors:
        file.seek(8 + len(header) + places[name])
        file.write(tensor.contiguous().view(torch.uint8).numpy().data)


def _write_folder(
    path: Path,
    architecture: str,
    models: Mapping[str, nn.Module],
    specs: Mapping[str, tuple[int, ...]],
    seed: int,
    dtype: torch.dtype,
    prediction_type: str,
    zero_snr: bool,
) -> None:
    importers = _importers(models)
    for part, (prefix, convert) in importers.items():
        shapes = {name: shape for name, shape in specs.items() if name.startswith(prefix)}
        if shapes:
            _write_part(path / part, models[part], shapes, prefix, convert, seed, dtype)
    for part, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        shutil.copytree(TOKENIZER, path / part, dirs_exist_ok=True)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            content = json.loads((path / part / name).read_text("utf-8"))
            _write_json(path / part / name, {**content, "pad_token": pad})
    scheduler = {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": zero_snr,
        "steps_offset": 1,
        "timestep_spacing": "trailing" if zero_snr else "leading",
    }
    (path / "scheduler").mkdir(exist_ok=True)
    _write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    parts = {part: (type(model).__module__.split(".")[0], type(model).__name__)
             for part, model in models.items()}  # fmt: skip
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        f"_{DEFAULTS}": json.dumps({"architecture": architecture}),
        "force_zeros_for_empty_prompt": False,
        "scheduler": ("diffusers", "EulerDiscreteScheduler"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        **parts,
    }
    _write_json(path / "model_index.json", index)


def _importers(models: Mapping[str, Any]) -> dict[str, tuple[str, Importer]]:
    config = models["unet"].config
    attention = {i for i, kind in enumerate(config.down_block_types) if "CrossAttn" in kind}
    levels = len(config.block_out_channels)
    vae_levels = len(models["vae"].config.block_out_channels)
    layers = models["text_encoder_2"].config.num_hidden_layers
    return {
        "unet": (UNET, by_table(unet_table(levels, config.layers_per_block, attention))),
        "vae": (VAE, vae_importer(vae_levels)),
        "text_encoder": (CLIP_L, clip_l),
        "text_encoder_2": (CLIP_G, clip_g_importer(layers)),
    }


def _write_part(folder: Path, model: Any, shapes: Mapping[str, tuple[int, ...]], prefix: str,
                convert: Importer, seed: int, dtype: torch.dtype) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    text = hasattr(model, "get_input_embeddings")

    def converted() -> Iterator[tuple[str, Tensor]]:
        for name, shape in shapes.items():
            yield from convert(name.removeprefix(prefix), draw(name, shape, seed, dtype))

    new_shapes = {
        new: tuple(tensor.shape)
        for name, shape in shapes.items()
        for new, tensor in convert(name.removeprefix(prefix), torch.empty(shape, device="meta"))
    }
    if text:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(str(folder))
    else:
        model.save_config(str(folder))
    weights = folder / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors")
    with writing(weights) as temporary, temporary.open("wb") as file:
        _write(file, new_shapes, converted(), dtype, {"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), "utf-8")
