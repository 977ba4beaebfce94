"""A header is written as it happened, and read whatever others wrote into it."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.lora.test_write import HEADER, SHAPES, some_layers
from unziplora.lora.adapter_config import AdapterConfig, adapter_configs
from unziplora.lora.metadata import info_of, read_info
from unziplora.lora.pair import find_pair, find_pairs
from unziplora.lora.write import save_lora

DEEP = "[" * 100_000 + "]" * 100_000


def with_metadata(path: Path, metadata: Any) -> Path:
    """A file whose `__metadata__` is anything, which the safetensors library does not write."""
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2)}, path)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def write_pair_of_files(folder: Path, name: str, pair: str) -> None:
    for role in ("content", "style"):
        header = replace(HEADER, role=role, name=f"{name}_{role}", pair=pair)  # type: ignore[arg-type]
        path = folder / f"{name}_{role}.safetensors"
        save_lora(path, some_layers(), header.metadata(), shapes=SHAPES)


def test_what_is_written_is_read_back() -> None:
    info = info_of(HEADER.metadata())
    assert (info.role, info.pair, info.method) == ("content", "0f3a", "unziplora")
    assert (info.trigger, info.steps, info.rank) == ("sks cat", 600, 4)
    assert (info.family, info.plan) == ("Pony", "low")
    assert info.prompts == HEADER.prompts
    assert info.notes == ()


def test_the_header_names_the_optimizer_and_whether_it_ran_in_the_backward_pass() -> None:
    metadata = HEADER.metadata()
    arguments = json.loads(metadata["ss_network_args"])
    assert arguments["fused_backward"] is True
    assert arguments["memory_plan"] == "low"
    assert metadata["ss_optimizer"] == "AdamW with 8-bit moments"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "None", '{"trigger": {"a": 1}}', '{"prompts": 3}', DEEP]
)
def test_a_header_that_cannot_be_read_says_nothing(text: str) -> None:
    info = info_of({"ss_network_args": text, "modelspec.trigger_phrase": "ink\nstyle"})
    assert info.pair is None
    assert info.trigger == "ink style"
    assert bool(info.notes) == (text in ("{", DEEP))


@pytest.mark.parametrize(
    "metadata",
    [
        None, 3, ["a"],
        {"ss_network_dim": 4, "ss_tag_frequency": {"a": {"b": 1}}, "ok": True, "none": None},
        {"ss_network_args": {"trigger": "ink", "pair": "7"}},
    ],
)  # fmt: skip
def test_metadata_that_is_not_text_is_read_as_far_as_it_goes(metadata: Any, tmp_path: Path) -> None:
    info = read_info(with_metadata(tmp_path / "a.safetensors", metadata))
    if isinstance(metadata, dict) and "ss_network_dim" in metadata:
        assert info.rank == 4
    if isinstance(metadata, dict) and "ss_network_args" in metadata:
        assert (info.trigger, info.pair) == ("ink", "7")


def test_peft_s_config_is_read_by_network() -> None:
    said = {
        "unet.r": 8, "unet.lora_alpha": 2, "unet.use_rslora": True,
        "unet.alpha_pattern": {"attn1.to_q": 6.0, "^down_blocks.0.conv": 3},
        "text_encoder.r": 4, "text_encoder.lora_alpha": 4,
        "text_encoder_2.r": 4, "text_encoder_2.lora_alpha": "odd",
    }  # fmt: skip
    found = adapter_configs({"lora_adapter_metadata": json.dumps(said)}, [])
    assert found.keys() == {"unet", "text_encoder"}
    unet = found["unet"]
    assert unet.rank_stabilised
    assert unet.alpha_of("up_blocks.1.attn1.to_q") == 6.0
    assert unet.alpha_of("down_blocks.0.conv") == 3.0
    assert unet.alpha_of("up_blocks.1.xattn1.to_q") == 2.0
    assert found["text_encoder"] == AdapterConfig(4, 4)
    nested = {"unet": {"r": 8, "lora_alpha": 2}}
    assert adapter_configs({"lora_adapter_metadata": json.dumps(nested)}, []) == {
        "unet": AdapterConfig(8, 2)
    }


def test_a_foreign_file_hides_no_pair(tmp_path: Path) -> None:
    write_pair_of_files(tmp_path, "cat", "one")
    write_pair_of_files(tmp_path, "dog", "two")
    for name in ("ant", "bee", "cow", "elk"):
        for role in ("content", "style"):
            path = tmp_path / f"{name}_{role}.safetensors"
            match name:
                case "ant":
                    save_file({"x": torch.ones(1)}, path, {"ss_network_args": DEEP})
                case "bee":
                    with_metadata(path, {"ss_network_args": [[[]]]})
                case "cow":
                    path.write_bytes(b"<html>")
                case "elk":
                    path.mkdir()
    assert {pair.name for pair in find_pairs(tmp_path)} == {"cat", "dog"}


def test_two_files_of_two_runs_are_no_pair(tmp_path: Path) -> None:
    write_pair_of_files(tmp_path, "cat", "one")
    write_pair_of_files(tmp_path, "dog", "two")
    (tmp_path / "dog_style.safetensors").replace(tmp_path / "cat_style.safetensors")
    assert find_pair(tmp_path, "cat") is None
    assert find_pair(tmp_path, "dog") is None
    assert find_pair(tmp_path, "../cat") is None


def test_a_pair_knows_its_side_files(tmp_path: Path) -> None:
    write_pair_of_files(tmp_path, "cat", "one")
    (tmp_path / "cat_style.json").write_text("{}")
    (tmp_path / "cat_other.json").write_text("{}")
    pair = find_pair(tmp_path, "cat")
    assert pair is not None
    assert {path.name for path in pair.all_files()} == {
        "cat_content.safetensors", "cat_style.safetensors", "cat_style.json",
    }  # fmt: skip
    assert pair.as_json()["content"] == "cat_content.safetensors"
    assert pair.family == "Pony"
