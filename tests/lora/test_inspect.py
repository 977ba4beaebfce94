"""`inspect` says what a LoRA file is, whoever wrote it, and refuses what is none."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tests.lora.test_write import HEADER, RANK, SHAPES, some_layers
from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.inspect import inspect
from unziplora.lora.read import read_lora
from unziplora.lora.write import save_lora
from unziplora.unet.architectures import family
from unziplora.unet.layer_names import kohya_name, sgm_name

TO_K = "output_blocks.1.1.transformer_blocks.3.attn2.to_k"
TO_OUT = "output_blocks.3.1.transformer_blocks.1.attn1.to_out.0"
DIFFUSERS = {
    TO_K: "up_blocks.0.attentions.1.transformer_blocks.3.attn2.to_k",
    TO_OUT: "up_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0",
    "middle_block.1.transformer_blocks.9.attn1.to_q":
        "mid_block.attentions.0.transformer_blocks.9.attn1.to_q",
    "input_blocks.8.1.transformer_blocks.0.attn1.to_v":
        "down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_v",
}  # fmt: skip
DOWN, UP = torch.randn(RANK, 48), torch.randn(32, RANK)


def written(path: Path, names: dict[str, str], down: str, up: str) -> Path:
    """A file with one pair of matrices for each name."""
    tensors: dict[str, Tensor] = {}
    for name in names.values():
        tensors |= {f"{name}.{down}": DOWN.clone(), f"{name}.{up}": UP.clone()}
    save_file(tensors, path)
    return path


STYLES = {
    "kohya, sgm names": ("lora_unet_{sgm_}", "lora_down.weight", "lora_up.weight"),
    "kohya, diffusers names": ("lora_unet_{diffusers_}", "lora_down.weight", "lora_up.weight"),
    "peft": ("unet.{diffusers}", "lora_A.weight", "lora_B.weight"),
    "peft with an adapter's name": (
        "base_model.model.{diffusers}", "lora_A.default.weight", "lora_B.default.weight",
    ),
    "diffusers": ("unet.{diffusers}", "lora.down.weight", "lora.up.weight"),
    "diffusers, linear layer": (
        "unet.{diffusers}", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight",
    ),
    "diffusers, processor": ("unet.{processor}", "down.weight", "up.weight"),
    "ComfyUI": ("diffusion_model.{sgm}", "lora_up.weight", "lora_down.weight"),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_every_program_names_layers_in_its_own_way(style: str, tmp_path: Path) -> None:
    template, down, up = STYLES[style]
    if style == "ComfyUI":
        down, up = up, down
    names = {}
    for sgm, diffusers in DIFFUSERS.items():
        layer, _, projection = diffusers.rpartition(".to_")
        names[sgm] = template.format(
            sgm=sgm,
            sgm_=sgm.replace(".", "_"),
            diffusers=diffusers,
            diffusers_=diffusers.replace(".", "_"),
            processor=f"{layer}.processor.to_{projection.removesuffix('.0')}_lora",
        )
    file = read_lora(written(tmp_path / "a.safetensors", names, down, up))
    assert set(file.layers) == set(DIFFUSERS)
    assert dict(file.left_out) == {}
    lora = file.layers[TO_K]
    assert torch.equal(lora.down, DOWN)
    assert torch.equal(lora.up, UP)
    assert lora.alpha == RANK  # none is stored: scale 1


@pytest.mark.parametrize("name", [m.name for m in family().values() if m.by_depths])
def test_each_of_the_family_is_recognised_from_its_file(name: str, tmp_path: Path) -> None:
    member = family()[name]
    layers = [
        f"{group}.transformer_blocks.{block}.attn2.to_k"
        for group, depth in member.groups.items()
        for block in range(depth)
    ]
    path = written(
        tmp_path / "a", {n: kohya_name(n) for n in layers}, "lora_down.weight", "lora_up.weight"
    )
    assert inspect(path).architecture == name
    n = member.res_blocks + 1
    diffusers = {}
    for layer in layers:
        side, place, rest = layer.split(".", 2)
        if side == "middle_block":
            diffusers[layer] = f"unet.mid_block.attentions.0.{rest}"
            continue
        i, j = divmod(int(place) - (side == "input_blocks"), n)
        rest = rest.removeprefix("1.")
        block = "down_blocks" if side == "input_blocks" else "up_blocks"
        diffusers[layer] = f"unet.{block}.{i}.attentions.{j}.{rest}"
    path = written(tmp_path / "b", diffusers, "lora_A.weight", "lora_B.weight")
    assert inspect(path).architecture == name


def test_a_b_lora_with_two_groups_is_read_as_sdxls(tmp_path: Path) -> None:
    names = {k: f"unet.{DIFFUSERS[k]}" for k in (TO_K, TO_OUT)}
    path = written(tmp_path / "a", names, "lora.down.weight", "lora.up.weight")
    assert set(read_lora(path).layers) == {TO_K, TO_OUT}


@pytest.mark.parametrize(
    "places",
    [
        ("down_blocks.1.attentions.0", "up_blocks.0.attentions.1"),
        ("down_blocks.2.attentions.0", "up_blocks.0.attentions.0", "up_blocks.1.attentions.1"),
        ("down_blocks.1.attentions.0", "down_blocks.2.attentions.0.transformer_blocks.9"),
    ],
)
def test_a_few_of_sdxls_groups_are_not_taken_for_koalas(
    places: tuple[str, ...], tmp_path: Path
) -> None:
    names = {
        place: f"unet.{place}{'' if 'transformer' in place else '.transformer_blocks.0'}.attn2.to_k"
        for place in places
    }
    path = written(tmp_path / "a", names, "lora_A.weight", "lora_B.weight")
    wanted = {sgm_name(name.removeprefix("unet.")) for name in names.values()}
    assert set(read_lora(path).layers) == wanted


def test_open_columns_and_norms_are_those_of_the_dense_product(tmp_path: Path) -> None:
    layers = some_layers()
    for name, lora in layers.items():
        rows = torch.arange(32) < (8 if "output_blocks" in name else 32)
        layers[name] = LoraLayer(lora.down.half(), (lora.up * rows[:, None]).half(), 2.0)
    path = tmp_path / "cat_content.safetensors"
    save_lora(path, layers, HEADER.metadata(), shapes=SHAPES)
    report = inspect(path)
    assert [g.group for g in report.groups] == [
        "input_blocks.4.1", "middle_block.1", "output_blocks.1.1",
    ]  # fmt: skip
    for group in report.groups:
        members = [lora for name, lora in layers.items() if name.startswith(group.group)]
        dense = [(2.0 / RANK) * lora.up.double() @ lora.down.double() for lora in members]
        assert group.layers == len(members) == 4
        assert group.open_columns == (0.25 if group.group == "output_blocks.1.1" else 1.0)
        assert group.norm == pytest.approx(float(sum(d.square().sum() for d in dense)) ** 0.5)


def test_our_own_file_says_role_pair_method_trigger_and_model(tmp_path: Path) -> None:
    path = tmp_path / "cat_content.safetensors"
    save_lora(path, some_layers(), HEADER.metadata(), shapes=SHAPES)
    report = inspect(path)
    assert report.header["role"] == "content"
    assert report.header["pair"] == "0f3a"
    assert report.hash_matches is True
    assert report.ranks == {RANK: len(SHAPES)}
    json.dumps(report.as_json(), allow_nan=False)
    text = report.as_text()
    for said in ("cat_content.safetensors", "unziplora", "sks cat", "sd_xl_base_1.0.safetensors",
                 "output_blocks.1.1", "100.0%"):  # fmt: skip
        assert said in text


def test_a_file_changed_after_it_was_written_does_not_match_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_lora(path, some_layers(), HEADER.metadata(), shapes=SHAPES)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert inspect(path).hash_matches is False


@pytest.mark.parametrize(
    "parts",
    [
        {"lokr_w1_a": (16384, 1), "lokr_w1_b": (1, 16384), "lokr_w2": (1, 1)},
        {"lokr_w1": (128, 128), "lokr_w2": (128, 128)},
        {"lokr_w1": (1, 1), "lokr_w2_a": (1, 16384), "lokr_w2_b": (1, 1),
         "lokr_t2": (1, 1, 96, 96)},
        {"lora_mid.weight": (16384, 1, 1, 1), "lora_down.weight": (1, 16384, 1, 1),
         "lora_up.weight": (1, 16384, 1, 1)},
    ],
)  # fmt: skip
def test_products_larger_than_any_layer_are_not_made(
    tmp_path: Path, parts: dict[str, tuple[int, ...]]
) -> None:
    module = "lora_unet_input_blocks_1_0_in_layers_2"
    tensors = {f"{module}.{part}": torch.ones(shape).half() for part, shape in parts.items()}
    save_file(tensors, tmp_path / "a")
    report = inspect(tmp_path / "a")
    assert report.algorithms == {}
    assert report.others == {"modules whose tensors do not belong together": 1}


def test_what_is_not_a_plain_lora_of_attention_is_counted(tmp_path: Path) -> None:
    attention = kohya_name(TO_K)
    tensors = {
        f"{attention}.lora_down.weight": DOWN,
        f"{attention}.lora_up.weight": UP,
        f"{attention}.dora_scale": torch.ones(1, 48),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 8),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(8, 4),
        "lora_unet_input_blocks_1_0_in_layers_2.lokr_w1": torch.ones(4, 4),
        "lora_unet_input_blocks_1_0_in_layers_2.lokr_w2": torch.ones(4, 4, 3, 3),
        "lora_unet_input_blocks_3_0_op.lora_down.weight": torch.ones(4, 8, 3, 3),
        "lora_unet_input_blocks_3_0_op.lora_up.weight": torch.ones(8, 4, 1, 1),
        f"{kohya_name(TO_OUT)}.lora_down.weight": torch.ones(4, 8),  # its other half is missing
        "whatever": torch.ones(1),
    }
    save_file(tensors, tmp_path / "a")
    report = inspect(tmp_path / "a")
    assert report.layers == 4
    assert report.algorithms == {"LoRA": 2, "LoRA with DoRA": 1, "LoKr": 1}
    assert report.others == {
        "text encoder modules": 1,
        "modules of the UNet beside attention": 2,
        "modules whose tensors do not belong together": 1,
        "unknown tensors": 1,
    }


@pytest.mark.parametrize(
    ("group", "width", "said"),
    [("down_blocks_0_attentions_0", 768, "SD 1"), ("up_blocks_3_attentions_2", 1024, "SD 2")],
)
def test_a_lora_of_an_older_stable_diffusion_is_called_so(
    group: str, width: int, said: str, tmp_path: Path
) -> None:
    name = f"lora_unet_{group}_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(4, width),
        f"{name}.lora_up.weight": torch.ones(320, 4),
    }
    save_file(tensors, tmp_path / "a")
    assert said in inspect(tmp_path / "a").architecture


def test_numbers_that_are_not_finite_are_pointed_out(tmp_path: Path) -> None:
    names = [kohya_name(f"output_blocks.{i}.1.transformer_blocks.0.attn1.to_q") for i in range(3)]
    tensors = {}
    for name, bad in zip(names, (torch.nan, torch.inf, 0.0), strict=True):
        tensors |= {
            f"{name}.lora_down.weight": torch.ones(4, 8),
            f"{name}.alpha": torch.tensor(4.0),
        }
        tensors[f"{name}.lora_up.weight"] = torch.full((8, 4), bad)
    tensors[f"{names[2]}.alpha"] = torch.tensor(torch.nan)
    save_file(tensors, tmp_path / "a")
    report = inspect(tmp_path / "a")
    assert len(report.not_finite) == 3
    json.dumps(report.as_json(), allow_nan=False)
    assert "NOT FINITE" in report.as_text()


def test_a_layer_of_rank_zero_does_not_divide_by_it(tmp_path: Path) -> None:
    name = kohya_name(TO_K)
    tensors = {
        f"{name}.lora_down.weight": torch.ones(0, 8),
        f"{name}.lora_up.weight": torch.ones(8, 0),
    }
    save_file(tensors, tmp_path / "a")
    assert inspect(tmp_path / "a").layers == 0


def test_a_checkpoint_is_refused_without_reading_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sdxl.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4)}, path)

    def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Tensor, "clone", read)
    with pytest.raises(InvalidInput, match="not a LoRA"):
        inspect(path)


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "pickle.pt").write_bytes(b"PK\x03\x04 rest of a zip")
    (tmp_path / "long header").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    save_file({"a.lora_up.weight": torch.ones(64)}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-9])
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}})
    lying = struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    (tmp_path / "lying").write_bytes(lying)
    for name in ("empty", "pickle.pt", "long header", "cut", "lying", "missing", ".", "a\0b"):
        with pytest.raises(InvalidInput):
            inspect(tmp_path / name)


@settings(max_examples=60)
@given(st.dictionaries(
    st.sampled_from([
        "ss_network_args", "modelspec.title", "sshs_model_hash", "ss_steps", "ss_sd_model_name",
    ]),
    st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
              st.sampled_from(["{}", "[1]", "null", "[" * 5000, '{"role": {"a": [1]}}', "1e999"])),
))  # fmt: skip
def test_no_header_however_odd_stops_it(metadata: dict[str, str]) -> None:
    path = ODD
    name = kohya_name(TO_K)
    save_file({f"{name}.lora_down.weight": DOWN, f"{name}.lora_up.weight": UP}, path, metadata)
    report = inspect(path)
    json.dumps(report.as_json(), allow_nan=False)
    assert all(line.isprintable() for line in report.as_text().split("\n"))


ODD = Path()


@pytest.fixture(scope="module", autouse=True)
def odd_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One place for the files of the property test, which cannot have one each."""
    global ODD
    ODD = tmp_path_factory.mktemp("odd") / "a.safetensors"
