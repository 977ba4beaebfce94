"""A checkpoint's four parts as diffusers' and transformers' models, from one file or a folder.

Models are made without memory of their own (on torch's meta device) and take the file's tensors
one by one, so that a 7 GB file needs no second copy. Loading is strict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from unziplora.checkpoints.configs import (
    HEAD_CHANNELS,
    VAE_SCALE,
    checked,
    clip_config,
    diffusers_vae_shapes,
    unet_shape,
    vae_config,
    vae_levels,
)
from unziplora.checkpoints.convert import (
    TEXT,
    Importer,
    Named,
    by_table,
    clip_g_importer,
    clip_l,
    vae_importer,
)
from unziplora.checkpoints.header import CheckpointHeader, Shape, read_header
from unziplora.checkpoints.identify import ModelFile
from unziplora.checkpoints.key_map import CLIP_G, CLIP_L, UNET, VAE
from unziplora.checkpoints.load import (
    Device,
    fill,
    missing,
    read,
    read_folder,
    read_json,
    unexpected,
    weights_in,
)
from unziplora.checkpoints.model_path import model_name
from unziplora.checkpoints.tokenizer import OWN, load_tokenizer
from unziplora.errors import InvalidInput

_LATENT_CHANNELS = 4  # of SDXL
# how AutoencoderKL's attention was called before diffusers 0.15
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.",
                  ".proj_attn.": ".to_out.0."}  # fmt: skip


class Checkpoint(Protocol):
    """Where a model's parts come from; each call reads them from disk again."""

    def unet(self, device: Device, dtype: torch.dtype) -> nn.Module: ...

    def vae(self, device: Device) -> nn.Module: ...

    def text_encoders(self, device: Device, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]: ...

    def tokenizers(self) -> tuple[Any, Any]: ...

    def weight_files(self) -> list[Path]:
        """The files whose bytes say which model this is."""


class SingleFile:
    """An SDXL-family checkpoint in sgm's layout, in one .safetensors file.

    head_channels, vae_scale: what the shapes do not say; from the file's .yaml where it has one.
    Raises InvalidInput, in each method, for a part whose tensors are not what its model needs.
    """

    def __init__(
        self,
        header: CheckpointHeader,
        *,
        head_channels: int = HEAD_CHANNELS,
        vae_scale: float = VAE_SCALE,
    ) -> None:
        self.path = header.path
        self.head_channels, self.vae_scale = head_channels, vae_scale
        self._parts = {prefix: _below(header, prefix) for prefix in (UNET, VAE, CLIP_L, CLIP_G)}

    def unet(self, device: Device, dtype: torch.dtype) -> nn.Module:
        try:
            shape = unet_shape(self._parts[UNET])
            pooled = self._parts[CLIP_G]["text_projection"][1]
        except KeyError as error:
            raise missing(self.path, "UNet", error) from None
        checked(shape, pooled, self.path.name)
        config = shape.config(pooled, self.head_channels)
        with torch.device("meta"):
            unet = UNet2DConditionModel(**config)
        return self._fill(unet, "UNet", UNET, by_table(shape.table()), device, dtype)

    def vae(self, device: Device) -> nn.Module:
        shapes = self._parts[VAE]
        if not shapes:
            raise InvalidInput(f"{self.path.name} has no VAE in it. Name one with --vae.")
        return _ldm_vae(self.path, shapes, VAE, self.vae_scale, device)

    def text_encoders(self, device: Device, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
        layers = len({n.split(".")[2] for n in self._parts[CLIP_G] if n.startswith("transformer.")})
        parts = ((CLIP_L, clip_l, False), (CLIP_G, clip_g_importer(layers), True))
        encoders = []
        for number, (prefix, convert, projection) in enumerate(parts, 1):
            what = f"text encoder {number}"
            try:
                shapes = {
                    new: tuple(tensor.shape)
                    for name, shape in self._parts[prefix].items()
                    for new, tensor in convert(name, torch.empty(shape, device="meta"))
                }
            except KeyError as error:
                raise unexpected(self.path, what, error.args[0]) from None
            encoder = _text_encoder(self.path, what, shapes, projection)
            encoders.append(self._fill(encoder, what, prefix, convert, device, dtype))
        return encoders[0], encoders[1]

    def tokenizers(self) -> tuple[Any, Any]:
        return _own_tokenizers()

    def weight_files(self) -> list[Path]:
        return [self.path]

    def _fill(self, model: nn.Module, what: str, prefix: str, convert: Importer,
              device: Device, dtype: torch.dtype) -> nn.Module:  # fmt: skip
        tensors = read(self.path, self._parts[prefix], prefix, what, convert)
        return fill(model, tensors, what, self.path, device, dtype)


class Folder:
    """An SDXL-family model in diffusers' layout: unet/, vae/, text_encoder/, text_encoder_2/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def unet(self, device: Device, dtype: torch.dtype) -> nn.Module:
        config = UNet2DConditionModel.load_config(str(self.path / "unet"))
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
        tensors = read_folder(self.path / "unet", "UNet")
        return fill(unet, tensors, "UNet", self.path, device, dtype)

    def vae(self, device: Device) -> nn.Module:
        return _folder_vae(self.path / "vae", self.path, device)

    def text_encoders(self, device: Device, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
        encoders = []
        for part, kind in (
            ("text_encoder", CLIPTextModel),
            ("text_encoder_2", CLIPTextModelWithProjection),
        ):
            config = CLIPTextConfig.from_dict(read_json(self.path / part / "config.json"))
            with torch.device("meta"):
                encoder = kind(config)
            tensors = (
                (name if name.startswith((TEXT, "text_projection")) else TEXT + name, tensor)
                for name, tensor in read_folder(self.path / part, part)
                if not name.endswith("position_ids")
            )
            encoders.append(fill(encoder, tensors, part, self.path, device, dtype))
        return encoders[0], encoders[1]

    def tokenizers(self) -> tuple[Any, Any]:
        first, second = self.path / "tokenizer", self.path / "tokenizer_2"
        own, name = _own_tokenizers(), model_name(self.path)
        return (
            load_tokenizer(first, name) if first.is_dir() else own[0],
            load_tokenizer(second, name) if second.is_dir() else own[1],
        )

    def weight_files(self) -> list[Path]:
        return weights_in(self.path / "unet", "UNet")


def open_checkpoint(model: ModelFile) -> Checkpoint:
    """The parts of a model that `identify` knew; reads no tensor yet."""
    if model.folder:
        return Folder(model.path)
    header = read_header(model.path)
    return SingleFile(header, head_channels=model.head_channels, vae_scale=model.vae_scale)


def check_vae(path: Path, scale: float) -> None:
    """Of an external VAE for a model with this factor of latents; reads no tensor.

    Raises InvalidInput for what is no VAE, or one of another model: its latents have another number
    of channels, or its folder says another factor.
    """
    own_scale: Any = scale
    if path.is_dir():
        config = read_json(_vae_folder(path) / "config.json")
        channels = config.get("latent_channels", _LATENT_CHANNELS)  # diffusers' own default
        own_scale = config.get("scaling_factor", scale)
    else:
        _, shapes, _ = _vae_file(path)
        channels = shapes.get("decoder.conv_in.weight", (0, _LATENT_CHANNELS))[1]
    if channels != _LATENT_CHANNELS:
        raise InvalidInput(
            f"{path.name} is a VAE for another kind of model: its latents have {channels} "
            f"channels, SDXL's have {_LATENT_CHANNELS}. Name a VAE for SDXL with --vae."
        )
    if not isinstance(own_scale, (int, float)) or not abs(own_scale - scale) <= 0.01 * scale:
        raise InvalidInput(
            f"{path.name} is a VAE for another kind of model: it scales latents by {own_scale}, "
            f"this model by {scale:g}. Name a VAE for SDXL with --vae."
        )


def load_vae(path: Path, device: Device, scale: float = VAE_SCALE) -> nn.Module:
    """An external VAE in fp32: a folder, or a file with ldm's or diffusers' names.

    scale: the latents' factor for a file, which does not say it, and a folder that does not. Raises
    InvalidInput for anything else.
    """
    if path.is_dir():
        return _folder_vae(_vae_folder(path), path, device, scale)
    prefix, shapes, ldm = _vae_file(path)
    if ldm:
        return _ldm_vae(path, shapes, prefix, scale, device)
    config = vae_config(diffusers_vae_shapes(_renamed(shapes)), scale)
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
    tensors = read(path, shapes, "", "VAE", lambda name, tensor: iter([(name, tensor)]))
    return fill(vae, _new_attention(tensors), "VAE", path, device, torch.float32)


def _vae_folder(path: Path) -> Path:
    return path / "vae" if (path / "vae" / "config.json").is_file() else path


def _vae_file(path: Path) -> tuple[str, Mapping[str, Shape], bool]:
    """Where a VAE is in a file, its shapes below that, and whether it has ldm's names."""
    header = read_header(path)
    for prefix in ("", VAE):
        shapes = _below(header, prefix)
        if "decoder.mid.block_1.conv1.weight" in shapes:
            return prefix, shapes, True
    if "decoder.mid_block.resnets.0.conv1.weight" in header.shapes:
        return "", header.shapes, False
    raise InvalidInput(
        f"{path.name} is not a VAE. Name a VAE's .safetensors file or diffusers folder with --vae."
    )


def _below(header: CheckpointHeader, prefix: str) -> dict[str, Shape]:
    return {
        name.removeprefix(prefix): shape
        for name, shape in header.shapes.items()
        if name.startswith(prefix)
    }


def _ldm_vae(path: Path, shapes: Mapping[str, Shape], prefix: str, scale: float,
             device: Device) -> nn.Module:  # fmt: skip
    shapes = {
        name: shape
        for name, shape in shapes.items()
        if not name.startswith(("loss.", "model_ema."))
    }
    try:
        config = vae_config(shapes, scale)
    except KeyError as error:
        raise missing(path, "VAE", error) from None
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
    tensors = read(path, shapes, prefix, "VAE", vae_importer(vae_levels(shapes)))
    return fill(vae, tensors, "VAE", path, device, torch.float32)


def _folder_vae(folder: Path, path: Path, device: Device, scale: float | None = None) -> nn.Module:
    """scale: where its config has none; diffusers would take SD 1's."""
    stated = read_json(folder / "config.json")
    config = AutoencoderKL.load_config(str(folder))
    if scale is not None:
        config["scaling_factor"] = stated.get("scaling_factor", scale)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(config)
    tensors = _new_attention(read_folder(folder, "VAE"))
    return fill(vae, tensors, "VAE", path, device, torch.float32)


def _text_encoder(path: Path, what: str, shapes: Mapping[str, Shape],
                  projection: bool) -> nn.Module:  # fmt: skip
    try:
        config = CLIPTextConfig(**clip_config(shapes, projection=projection))
    except KeyError as error:
        raise missing(path, what, error) from None
    with torch.device("meta"):
        encoder: nn.Module = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    return encoder


def _new_attention(tensors: Iterable[Named]) -> Iterator[Named]:
    for name, tensor in tensors:
        new = _new_name(name)
        yield new, tensor[:, :, 0, 0] if ".to_" in new and tensor.ndim == 4 else tensor


def _renamed(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {_new_name(name): shape for name, shape in shapes.items()}


def _new_name(name: str) -> str:
    if ".attentions." in name:
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
    return name


def _own_tokenizers() -> tuple[Any, Any]:
    here = "this program"
    return load_tokenizer(OWN, here), load_tokenizer(OWN, here, pad_token="!")
