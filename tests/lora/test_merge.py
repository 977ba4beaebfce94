"""Merging LoRAs into one file is exact; overlap says what it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.merge import merge
from unziplora.lora.overlap import GroupColumns, columns, overlap_warning
from unziplora.lora.read import check_readable, read_lora
from unziplora.lora.write import save_lora

LAYERS = [
    f"output_blocks.{n}.1.transformer_blocks.0.attn1.{projection}"
    for n in (0, 1)
    for projection in ("to_q", "to_out.0")
]
SHAPES = dict.fromkeys(LAYERS, (12, 8))


def lora(path: Path, rank: int, *, rows: slice = slice(None), seed: int = 0, **said: str) -> Path:
    """A random LoRA of which only some rows of `up` are open."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name in LAYERS:
        up = torch.zeros(12, rank)
        up[rows] = torch.randn(up[rows].shape, generator=generator)
        layers[name] = LoraLayer(torch.randn(rank, 8, generator=generator), up, rank / 2)
    save_lora(path, layers, said, shapes=SHAPES, dtype=torch.float32)
    return path


def change(path: Path, layer: str) -> torch.Tensor:
    one = read_lora(path).layers[layer]
    return one.alpha / one.down.shape[0] * one.up.float() @ one.down.float()


def test_the_merged_file_changes_the_weights_by_the_weighted_sum(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2, seed=1)
    b = lora(tmp_path / "b.safetensors", 3, seed=2)
    made = merge(tmp_path / "both.safetensors", [(a, 0.7), (b, 1.2)])
    assert made.layers == len(LAYERS)
    for layer in LAYERS:
        expected = 0.7 * change(a, layer) + 1.2 * change(b, layer)
        assert torch.allclose(change(made.path, layer), expected, atol=2e-2)  # fp16 file
    metadata = read_lora(made.path).metadata
    assert metadata["ss_output_name"] == "both"
    assert metadata["ss_network_dim"] == "5"


def test_what_a_merge_leaves_out_is_said(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2)
    b = lora(tmp_path / "b.safetensors", 2, seed=1)
    save_file({**load_file(b), "bundle_emb.word.clip_l": torch.ones(1, 8)}, b)
    assert merge(tmp_path / "one.safetensors", [(a, 1.0), (a, 1.0)]).notes == ()
    (note,) = merge(tmp_path / "both.safetensors", [(a, 1.0), (b, 1.0)]).notes
    assert (
        note == "1 bundled embedding tensors of b.safetensors could not be read and are left out."
    )


def test_triggers_of_both_are_kept_and_hashes_are_new(tmp_path: Path) -> None:
    said = {"modelspec.trigger_phrase": "sks cat", "sshs_model_hash": "old"}
    a = lora(tmp_path / "a.safetensors", 2, **said)
    b = lora(tmp_path / "b.safetensors", 2, seed=1, **{"modelspec.trigger_phrase": "ink style"})
    made = merge(tmp_path / "both.safetensors", [(a, 1), (b, 1)])
    metadata = read_lora(made.path).metadata
    card = json.loads(made.path.with_suffix(".json").read_text("utf-8"))
    assert card["activation text"] == "sks cat, ink style"
    assert metadata["modelspec.trigger_phrase"] == "sks cat, ink style"
    assert metadata["sshs_model_hash"] == made.model_hash


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2)
    with pytest.raises(InvalidInput, match="exists"):
        merge(a, [(a, 1.0)])


def test_a_file_that_was_read_in_part_is_not_merged(tmp_path: Path) -> None:
    whole = lora(tmp_path / "whole.safetensors", 2)
    tensors = load_file(whole)
    name = next(name for name in tensors if name.endswith("lora_down.weight"))
    tensors[name] = tensors[name][:1].contiguous()  # its rank is no longer its partner's
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(InvalidInput, match="1 modules whose tensors do not belong together"):
        merge(tmp_path / "merged.safetensors", [(tmp_path / "part.safetensors", 1.0)])
    assert not (tmp_path / "merged.safetensors").exists()


def test_an_adapter_of_no_rank_is_none(tmp_path: Path) -> None:
    factors = {"w1_a": (4, 0), "w1_b": (0, 4), "w2_a": (4, 0), "w2_b": (0, 4)}
    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.hada_{part}": torch.zeros(shape) for part, shape in factors.items()}
    save_file({**tensors, f"{name}.alpha": torch.tensor(1.0)}, tmp_path / "none.safetensors")
    with pytest.raises(InvalidInput, match="do not belong together"):
        check_readable(read_lora(tmp_path / "none.safetensors"))


def test_columns_are_counted_by_group_and_overlap_is_a_share_of_those_of_either(
    tmp_path: Path,
) -> None:
    a = lora(tmp_path / "a.safetensors", 2, rows=slice(0, 8), seed=1)
    b = lora(tmp_path / "b.safetensors", 2, rows=slice(6, 10), seed=2)
    found = columns(a, b)
    assert found == {
        "output_blocks.0.1": GroupColumns(first=16, second=8, both=4, total=24),
        "output_blocks.1.1": GroupColumns(first=16, second=8, both=4, total=24),
    }
    assert found["output_blocks.0.1"].overlap == 0.2
    assert columns(a, a)["output_blocks.1.1"].overlap == 1.0


def test_only_much_overlap_in_many_groups_is_warned_of() -> None:
    def group(both: int) -> GroupColumns:
        return GroupColumns(first=10, second=10, both=both, total=30)

    assert overlap_warning({"a": group(1), "b": group(9), "c": group(2)}) is None
    warning = overlap_warning({"a": group(9), "b": group(8), "c": group(2)})
    assert warning is not None
    assert "2 of 3" in warning


def test_block_separation_is_not_warned_of() -> None:
    full_and_limited = GroupColumns(first=100, second=30, both=30, total=100)
    assert overlap_warning({"a": full_and_limited, "b": full_and_limited}) is None
