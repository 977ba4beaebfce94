"""LoRA files that need no model to be read and merged as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lora.layouts import Made
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.lora.read import read_lora
from unziplora.unet.architectures import family
from unziplora.unet.layer_names import kohya_name


def test_a_merge_keeps_text_encoder_layers(tmp_path: Path) -> None:
    key = "lora_te2_text_model_encoder_layers_1_self_attn_q_proj"
    down, up = torch.rand(2, 32), torch.rand(32, 2)
    made = Made({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, {})
    part = made.write(tmp_path / "a.safetensors")
    merged = read_lora(merge(tmp_path / "b.safetensors", [(part, 0.5), (part, 1.0)]).path)
    (target,) = merged.adapters
    assert target == ("te2", "text_model.encoder.layers.1.self_attn.q_proj")
    got = merged.adapters[target].delta(torch.zeros(32, 32))
    torch.testing.assert_close(got, 1.5 * up @ down, rtol=2e-3, atol=2e-3)


def test_a_rank_that_is_larger_than_the_layer_needs_no_memory_of_its_square(
    tmp_path: Path,
) -> None:
    key = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn2_to_k"
    rank = 400_000  # its square has 1.3 TB in double
    down, up = torch.ones(rank, 2), torch.ones(1, rank)
    made = Made({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up,
                 f"{key}.alpha": torch.tensor(3.0)}, {})  # fmt: skip
    (group,) = inspect(made.write(tmp_path / "a.safetensors")).groups
    assert group.norm == pytest.approx(3 * 2**0.5)


@pytest.mark.parametrize(
    ("header", "said"),
    [({"architecture": "mini"}, "mini"), ({}, "sdxl-like: SDXL's groups with 11 transformer")],
)
def test_a_lora_of_the_miniature_says_what_it_is_also_when_merged(
    header: dict[str, str], said: str, tmp_path: Path
) -> None:
    tensors = {}
    for group in family()["mini"].groups:
        key = kohya_name(f"{group}.transformer_blocks.0.attn1.to_q")
        shapes = {f"{key}.lora_down.weight": (2, 32), f"{key}.lora_up.weight": (32, 2)}
        tensors |= {name: torch.ones(shape) for name, shape in shapes.items()}
    part = tmp_path / "part.safetensors"
    save_file(tensors, part, {"ss_network_args": json.dumps(header)})
    merged = merge(tmp_path / "both.safetensors", [(part, 1.0), (part, 0.5)]).path
    for path in (part, merged):
        assert inspect(path).architecture.startswith(said)


def test_a_merged_convolution_of_1_by_1_keeps_its_dimensions(tmp_path: Path) -> None:
    key = "lora_unet_input_blocks_4_0_skip_connection"
    down, up = torch.rand(2, 8, 1, 1), torch.rand(16, 2, 1, 1)
    made = Made({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, {})
    part = made.write(tmp_path / "a.safetensors")
    merged = load_file(merge(tmp_path / "b.safetensors", [(part, 1.0), (part, 1.0)]).path)
    assert merged[f"{key}.lora_down.weight"].shape == (4, 8, 1, 1)
    assert merged[f"{key}.lora_up.weight"].shape == (16, 4, 1, 1)
