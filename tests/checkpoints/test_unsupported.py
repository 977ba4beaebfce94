"""What is no SDXL-family model is refused with a sentence that says what it is instead."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unziplora.checkpoints.identify import identify
from unziplora.checkpoints.key_map import CLIP_G, CLIP_L, UNET, VAE
from unziplora.errors import InvalidInput
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 1))
CONV_IN = UNET + "input_blocks.0.0.weight"
TO_K = UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
TEXT = {CLIP_L + "text_model.x": (1,), CLIP_G + "x": (1,)}

STRANGERS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("Stable Diffusion 1.5", {CONV_IN: (8, 4, 3, 3), "cond_stage_model.transformer.x": (1,)}),
    ("Stable Diffusion 1.5's UNet alone", {CONV_IN: (8, 4, 3, 3), TO_K: (8, 768)}),
    ("Stable Diffusion 2", {CONV_IN: (8, 4, 3, 3), "cond_stage_model.model.x": (1,)}),
    ("Stable Diffusion 3", {UNET + "joint_blocks.0.x": (1,)}),
    ("Stable Diffusion 3", {"joint_blocks.0.x": (1,)}),
    ("Flux", {UNET + "double_blocks.0.x": (1,)}),
    ("Flux", {"double_blocks.0.img_attn.x": (1,)}),
    ("the SDXL refiner", {CONV_IN: (8, 4, 3, 3), "conditioner.embedders.0.model.x": (1,)}),
    ("a LoRA", {"lora_unet_x.lora_down.weight": (1, 1), "lora_unet_x.lora_up.weight": (1, 1)}),
    ("a LoRA", {"unet.down_blocks.1.x.lora_A.weight": (1, 1)}),
    ("a VAE alone", {"decoder.conv_in.weight": (1,), "encoder.conv_in.weight": (1,)}),
    ("a VAE alone", {VAE + "decoder.conv_in.weight": (1,)}),
    ("a text encoder alone", {"text_model.embeddings.token_embedding.weight": (1,)}),
    ("a UNet alone", {"down_blocks.0.x": (1,), "conv_in.weight": (1,)}),
    ("a UNet alone", {"input_blocks.0.0.weight": (1,)}),
    ("a UNet without its text encoders", {CONV_IN: (8, 4, 3, 3), TO_K: (8, 2048)}),
    ("a ControlNet", {"controlnet_down_blocks.0.weight": (1,), "down_blocks.0.x": (1,)}),
    ("a ControlNet", {"control_model.input_blocks.0.0.weight": (1,)}),
    ("an IP-Adapter", {"image_proj.weight": (1,), "ip_adapter.1.to_k_ip.weight": (1,)}),
    ("a textual inversion", {"clip_g": (1,), "clip_l": (1,)}),
    ("an inpainting model whose UNet takes 9 channels", {CONV_IN: (8, 9, 3, 3), **TEXT}),
    ("an EDM model (as Playground v2.5 and CosXL)", {CONV_IN: (8, 4, 3, 3), "edm_mean": (1,)}),
    ("a quantised model", {CONV_IN: (8, 4, 3, 3), UNET + "x.weight.quant_state.nf4": (1,)}),
    ("a model of another architecture", {UNET + "transformer_blocks.0.x": (1,)}),
    ("something else", {"x": (1,)}),
]


@pytest.mark.parametrize(("what", "shapes"), STRANGERS)
def test_a_file_of_another_kind_is_called_by_its_name(
    tmp_path: Path, what: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = tmp_path / "stranger.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    with pytest.raises(InvalidInput) as refused:
        identify(path)
    beginning = f"stranger.safetensors is {what}, not an SDXL checkpoint. Choose an SDXL "
    assert str(refused.value).startswith(beginning)


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"There is no file .*nothing.safetensors. Check the name."
    ):
        identify(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"x": Bomb()}, tmp_path / name)
    with pytest.raises(InvalidInput, match=f"{name} is a pickle, which can run code"):
        identify(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidInput, match="is a pickle"):
        identify(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"abc", "is not a .safetensors file"),
        (b"\0" * 64, "is not a .safetensors file"),
        (b"\xff" * 64, "is not a .safetensors file"),
        (b"GGUF\3\0\0\0\0\0\0\0", "is a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is only a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\x0a\0\0\0\0\0\0\0{not json}", "The header of m.safetensors is damaged"),
        (b"\x02\0\0\0\0\0\0\0{}", "is something else, not an SDXL checkpoint"),
        (b'\x09\0\0\0\0\0\0\0{"a": []}', "The header of m.safetensors is damaged"),
    ],
)
def test_bytes_that_are_no_model(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=sentence):
        identify(path)


def test_a_truncated_file_says_how_much_is_there(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.safetensors", architecture="vega", widths=TINY)
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 20_000, 100):
        path.write_bytes(whole[:kept])
        with pytest.raises(
            InvalidInput, match=r"m.safetensors is truncated: .* GB are there. Down"
        ):
            identify(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(InvalidInput, match=r"header of m\.safetensors is damaged"):
        identify(path)


@pytest.mark.parametrize("offsets", [[-4, 0], [4, 0], [0, 5], ["a", 4], None])
def test_a_header_with_impossible_offsets_is_damaged(tmp_path: Path, offsets: Any) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": offsets}
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(InvalidInput, match=r"header of m\.safetensors is damaged"):
        identify(path)


def test_sgm_groups_that_no_member_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    blocks = UNET + "input_blocks.2.1.transformer_blocks.0.attn1.to_q.weight"
    names = {CONV_IN: (8, 4, 3, 3), blocks: (4, 4), **TEXT}
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, path)
    with pytest.raises(InvalidInput, match="not of the SDXL family"):
        identify(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "m", architecture="vega", widths=TINY, folder=True)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"addition_embed_type": None, "cross_attention_dim": 768}, "Stable Diffusion 1.5"),
        ({"addition_embed_type": None, "cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ({"in_channels": 9}, "an inpainting model whose UNet takes 9 channels"),
        ({"quantization_config": {}}, "a quantised model"),
    ],
)
def test_a_folder_of_another_kind(folder: Path, changes: dict[str, Any], what: str) -> None:
    edit(folder / "unet" / "config.json", **changes)
    with pytest.raises(InvalidInput, match=f"m is {what}, not an SDXL model. Choose"):
        identify(folder)


def test_a_folder_without_a_unet_says_which_pipeline_it_is(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()
    edit(folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(InvalidInput, match="m is Flux, not an SDXL model"):
        identify(folder)
    edit(folder / "model_index.json", _class_name="StableDiffusion3Pipeline")
    with pytest.raises(InvalidInput, match="m is Stable Diffusion 3"):
        identify(folder)


def test_the_refiners_folder(folder: Path) -> None:
    (folder / "text_encoder" / "config.json").unlink()
    with pytest.raises(InvalidInput, match="m is the SDXL refiner"):
        identify(folder)


def test_a_part_of_a_model_names_the_folder_above(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="unet is one part of a diffusers model"):
        identify(folder / "unet")


def test_a_folder_of_checkpoints_names_one_of_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder without a model"):
        identify(tmp_path)
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(InvalidInput, match=r"Choose one of the files, as .*one.safetensors"):
        identify(tmp_path)


def test_pickled_weights_in_a_folder_are_not_opened(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InvalidInput, match="The UNet in m is a pickle"):
        identify(folder)
    weights.with_suffix(".bin").unlink()
    with pytest.raises(InvalidInput, match="There are no weights of the UNet"):
        identify(folder)


def test_a_scheduler_of_another_kind(folder: Path) -> None:
    scheduler = folder / "scheduler" / "scheduler_config.json"
    edit(scheduler, prediction_type="sample")
    with pytest.raises(InvalidInput, match="m predicts 'sample', which cannot be trained here"):
        identify(folder)
    edit(scheduler, _class_name="EDMDPMSolverMultistepScheduler")
    with pytest.raises(InvalidInput, match="m is an EDM model"):
        identify(folder)
    scheduler.write_text("{")
    with pytest.raises(InvalidInput, match=r"scheduler_config\.json is damaged"):
        identify(folder)
