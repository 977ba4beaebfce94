"""A LoRA file is kohya's to the byte, says how it was made, and is checked by reading it back."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from unziplora.errors import UnZipLoRAError
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.metadata import Header
from unziplora.lora.sidecars import write_side_files
from unziplora.lora.write import save_lora

RANK = 4
SHAPES = {
    f"{group}.transformer_blocks.0.{attention}.{projection}": (32, width)
    for group in ("input_blocks.4.1", "middle_block.1", "output_blocks.1.1")
    for attention, width in (("attn1", 32), ("attn2", 48))
    for projection in ("to_k", "to_out.0")
}
HEADER = Header(
    role="content",
    name="cat_content",
    pair="0f3a",
    trigger="sks cat",
    prompts={"combined": "a sks cat in ink style", "content": "a sks cat"},
    method="unziplora",
    rank=RANK,
    alpha=4.0,
    steps=600,
    planned_steps=600,
    lr=5e-5,
    lr_schedule="constant",
    optimizer="AdamW with 8-bit moments",
    family="Pony",
    seed=7,
    resolution=(1152, 896),
    model_name="sd_xl_base_1.0.safetensors",
    model_sha256="31e3" * 16,
    prediction_type="v_prediction",
    zero_terminal_snr=True,
    architecture="sdxl",
    started=1_700_000_000.0,
    finished=1_700_000_600.5,
    mixed_precision="bf16",
    plan="low",
    fused_backward=True,
    checkpointing=True,
    max_grad_norm=1.0,
    min_snr_gamma=None,
    software="unziplora 0.2.0",
    open_columns={"output_blocks.1.1": 0.3},
    network={"columns_percent": 30.0},
)


def some_layers() -> dict[str, LoraLayer]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: LoraLayer(
            torch.randn(RANK, width, generator=generator),
            torch.randn(out, RANK, generator=generator),
            4.0,
        )
        for name, (out, width) in SHAPES.items()
    }


def test_the_keys_are_kohyas_in_sgm_names(tmp_path: Path) -> None:
    layers = some_layers()
    save_lora(tmp_path / "a.safetensors", layers, HEADER.metadata(), shapes=SHAPES)
    tensors = load_file(tmp_path / "a.safetensors")
    assert len(tensors) == 3 * len(SHAPES)
    name = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn2_to_out_0"
    layer = layers["output_blocks.1.1.transformer_blocks.0.attn2.to_out.0"]
    assert torch.equal(tensors[f"{name}.lora_down.weight"], layer.down.half())
    assert torch.equal(tensors[f"{name}.lora_up.weight"], layer.up.half())
    assert tensors[f"{name}.alpha"].shape == ()
    assert tensors[f"{name}.alpha"].item() == 4.0
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_the_hashes_are_those_that_kohya_computes(tmp_path: Path) -> None:
    # big enough for the old hash's window, 64 KiB at 1 MiB, to lie inside
    shapes = dict.fromkeys(SHAPES, (2048, 1024))
    layers = {
        name: LoraLayer(torch.randn(64, 1024), torch.randn(2048, 64), 64.0) for name in shapes
    }
    path = tmp_path / "a.safetensors"
    saved = save_lora(path, layers, HEADER.metadata(), shapes=shapes)

    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    stored = header["__metadata__"]
    model_hash = hashlib.sha256(data[8 + size :]).hexdigest()
    assert saved.model_hash == stored["sshs_model_hash"] == model_hash
    assert stored["modelspec.hash_sha256"] == f"0x{model_hash}"

    # the old one sees the file as it is with the ss_ keys alone: another header, same tensors
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "b", {k: v for k, v in stored.items() if k.startswith("ss_")})
    with open(tmp_path / "b", "rb") as bare:
        bare.seek(0x100000)
        window = bare.read(0x10000)
    assert len(window) == 0x10000
    assert stored["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]


def test_the_same_layers_and_header_give_the_same_hashes_and_header(tmp_path: Path) -> None:
    headers = []
    for name in ("a", "b"):  # the order of a header's keys is safetensors' own, and differs
        save_lora(tmp_path / name, some_layers(), HEADER.metadata(), shapes=SHAPES)
        with safe_open(tmp_path / name, "pt") as file:
            headers.append(file.metadata())
    assert headers[0] == headers[1]


def test_layers_that_are_all_zero_are_left_out(tmp_path: Path) -> None:
    layers = some_layers()
    first, second, *rest = layers
    layers[first] = replace(layers[first], up=torch.zeros(32, RANK))
    layers[second] = replace(layers[second], up=torch.full((32, RANK), 1e-9))  # zero in fp16
    saved = save_lora(tmp_path / "a", layers, HEADER.metadata(), shapes=SHAPES)
    assert (saved.layers, saved.dropped) == (len(rest), 2)
    assert len(load_file(tmp_path / "a")) == 3 * len(rest)


def test_views_and_other_dtypes_are_written_as_what_they_show(tmp_path: Path) -> None:
    layers = {
        name: LoraLayer(lora.down.t().contiguous().t(), lora.up.bfloat16(), lora.alpha)
        for name, lora in some_layers().items()
    }
    save_lora(tmp_path / "a", layers, {}, shapes=SHAPES, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "a").values()} == {torch.bfloat16}


def broken(what: str) -> tuple[dict[str, LoraLayer], dict[str, tuple[int, int]], str]:
    """Layers that must not be written, the model's shapes, and what the message has to say."""
    layers, shapes = some_layers(), dict(SHAPES)
    name, *_ = layers
    lora = layers[name]
    if what == "NaN":
        layers[name] = replace(lora, down=lora.down.index_fill(1, torch.tensor([3]), torch.nan))
        return layers, shapes, name
    if what == "too large for fp16":
        layers[name] = replace(lora, up=lora.up * 1e6)
        return layers, shapes, "float16"
    if what == "nothing learned":
        nothing = {n: replace(one, up=torch.zeros_like(one.up)) for n, one in layers.items()}
        return nothing, shapes, "learned nothing"
    if what == "zero in fp16":
        tiny = {n: replace(one, up=one.up * 1e-12) for n, one in layers.items()}
        return tiny, shapes, "learned nothing"
    if what == "a layer that the model lacks":
        del shapes[name]
    elif what == "another width":
        shapes[name] = (32, 33)
    elif what == "another height":
        shapes[name] = (31, shapes[name][1])
    elif what == "two ranks in one layer":
        layers[name] = replace(lora, up=torch.ones(32, RANK + 1))
    return layers, shapes, "match"


@pytest.mark.parametrize(
    "what",
    [
        "NaN", "too large for fp16", "nothing learned", "zero in fp16",
        "a layer that the model lacks", "another width", "another height",
        "two ranks in one layer",
    ],
)  # fmt: skip
def test_a_file_that_would_be_wrong_is_not_written_and_an_earlier_one_stays(
    what: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"earlier")
    layers, shapes, said = broken(what)
    with pytest.raises(UnZipLoRAError, match=said):
        save_lora(path, layers, HEADER.metadata(), shapes=shapes)
    assert os.listdir(tmp_path) == ["a.safetensors"]
    assert path.read_bytes() == b"earlier"


def test_a_disk_that_garbles_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def garble(path: Path, data: bytes) -> int:
        return real(path, data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(Path, "write_bytes", garble)
    with pytest.raises(UnZipLoRAError, match="not match"):
        save_lora(tmp_path / "a", some_layers(), {}, shapes=SHAPES)
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: real(path, data[: len(data) // 2]))
    with pytest.raises(UnZipLoRAError, match="read back"):
        save_lora(tmp_path / "a", some_layers(), {}, shapes=SHAPES)
    assert os.listdir(tmp_path) == []


def test_the_header_is_strings_that_kohya_and_webuis_read() -> None:
    metadata = HEADER.metadata()
    assert all(isinstance(v, str) for item in metadata.items() for v in item)
    assert metadata["ss_v2"] == "False"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_network_dim"] == "4"
    assert float(metadata["ss_network_alpha"]) == 4
    assert metadata["ss_output_name"] == "cat_content"
    assert metadata["ss_resolution"] == "(1152, 896)"
    assert json.loads(metadata["ss_tag_frequency"]) == {"content": {"sks cat": 1}}
    buckets = json.loads(metadata["ss_bucket_info"])["buckets"]
    assert buckets == {"0": {"resolution": [1152, 896], "count": 1}}
    arguments = json.loads(metadata["ss_network_args"])
    assert arguments["role"] == "content"
    assert arguments["pair"] == "0f3a"
    assert arguments["open_columns"] == {"output_blocks.1.1": 0.3}
    assert arguments["columns_percent"] == 30.0
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.date"] == "2023-11-14T22:23:20"
    assert metadata["modelspec.trigger_phrase"] == "sks cat"


def test_what_is_not_known_is_not_said() -> None:
    metadata = replace(HEADER, model_sha256=None).metadata()
    assert "ss_new_sd_model_hash" not in metadata
    assert "modelspec.thumbnail" not in metadata
    assert "ss_sd_model_hash" not in metadata


@pytest.mark.parametrize("folder", ["/home/zq/", "C:\\Users\\zq\\", "zq/"])
def test_no_path_of_the_user_gets_into_the_header(folder: str) -> None:
    metadata = replace(HEADER, model_name=f"{folder}base.safetensors").metadata()
    assert metadata["ss_sd_model_name"] == "base.safetensors"
    assert not any("zq" in value for value in metadata.values())


def test_the_two_files_of_a_pair_are_told_apart_and_belong_together() -> None:
    content = HEADER.metadata()
    style = replace(HEADER, role="style", name="cat_style", trigger="ink style").metadata()
    assert content["ss_session_id"] == style["ss_session_id"]
    for key in ("ss_output_name", "modelspec.title", "modelspec.trigger_phrase"):
        assert content[key] != style[key]


def test_the_thumbnail_is_a_small_jpeg_in_the_header() -> None:
    metadata = replace(HEADER, thumbnail=Image.new("RGBA", (1024, 512))).metadata()
    head, _, body = metadata["modelspec.thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert len(body) < 20_000


def test_side_files_are_what_a1111_reads_and_a_users_own_stay(tmp_path: Path) -> None:
    path = tmp_path / "v1.5_content.safetensors"
    write_side_files(path, HEADER, Image.new("RGB", (1024, 768)), replace=False)
    card = json.loads((tmp_path / "v1.5_content.json").read_text(encoding="utf-8"))
    assert card["sd version"] == "SDXL"
    assert card["activation text"] == "sks cat"
    assert card["preferred weight"] == 1.0
    assert {"description", "negative text", "notes"} <= card.keys()
    with Image.open(tmp_path / "v1.5_content.png") as image:
        assert image.size == (512, 384)

    (tmp_path / "v1.5_content.json").write_text("mine", encoding="utf-8")
    other = replace(HEADER, trigger="sks dog")
    write_side_files(path, other, Image.new("RGB", (64, 64)), replace=False)
    assert (tmp_path / "v1.5_content.json").read_text(encoding="utf-8") == "mine"
    write_side_files(path, other, Image.new("RGB", (64, 64)), replace=True)
    assert "sks dog" in (tmp_path / "v1.5_content.json").read_text(encoding="utf-8")
    assert sorted(os.listdir(tmp_path)) == ["v1.5_content.json", "v1.5_content.png"]


def test_half_a_character_in_a_header_does_not_cost_the_file(tmp_path: Path) -> None:
    """A part's name that is no UTF-8 is in the header of what is merged of it."""
    path = tmp_path / "x.safetensors"
    header = {**HEADER.metadata(), "ss_of": "fox\udce9.safetensors"}
    save_lora(path, some_layers(), header, shapes=SHAPES)
    with safe_open(path, "pt") as file:
        assert file.metadata()["ss_of"] == "fox?.safetensors"
