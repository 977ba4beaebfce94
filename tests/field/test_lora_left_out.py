"""Parts of LoRA files that cannot be read are never lost without a word.

Reported of such programs: a LoRA of another model is taken and only its text layers are applied;
merged files that are weaker than their parts, because some layers were skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.field.test_lora_layouts import TINY
from tests.lora.layouts import Made, Tensors, kohya, linears, pairs
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.generate import loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.testing.random_checkpoint import write_random_model


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("left_out") / "m.safetensors"
    return StandaloneHost.open(
        write_random_model(path, architecture="sdxl", widths=TINY), device="cpu"
    )


def clip_l() -> Tensors:
    """Layers of CLIP-L, which Stable Diffusion 3 and FLUX have as SDXL has it."""
    tensors = {}
    for number in range(2):
        name = f"text_encoder.text_model.encoder.layers.{number}.self_attn.q_proj"
        tensors |= {
            f"{name}.lora_A.weight": torch.rand(4, 32),
            f"{name}.lora_B.weight": torch.rand(32, 4),
        }
    return tensors


OTHERS = {
    "lora_unet_double_blocks_0_img_attn_qkv": "FLUX",
    "transformer.single_transformer_blocks.0.attn.to_q": "FLUX",
    "lora_unet_joint_blocks_0_x_block_attn_qkv": "Stable Diffusion 3",
    "transformer.transformer_blocks.0.attn.add_q_proj": "Stable Diffusion 3",
    "transformer.blocks.3.ffn.down": "another model",
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_models_lora_with_text_layers_is_refused(
    name: str, host: StandaloneHost, tmp_path: Path
) -> None:
    tensors = clip_l() | {
        f"{name}.lora_A.weight": torch.rand(4, 64),
        f"{name}.lora_B.weight": torch.rand(64, 4),
    }
    path = Made(tensors, {}).write(tmp_path / "other.safetensors")
    said = f"It is for {OTHERS[name]}"
    with pytest.raises(InvalidInput, match=said), loaded(host, [(path, 1.0)]):
        pass
    own = Made(kohya(pairs(linears(host.unet))), {}).write(tmp_path / "own.safetensors")
    with pytest.raises(InvalidInput, match=said):
        merge(tmp_path / "both.safetensors", [(own, 1.0), (path, 1.0)])
    assert inspect(path).architecture == f"not SDXL: its layers are those of {OTHERS[name]}"


def test_a_lora_of_text_encoders_alone_is_used_and_merged(
    host: StandaloneHost, tmp_path: Path
) -> None:
    path = Made(clip_l(), {}).write(tmp_path / "text.safetensors")
    before = host.encode_prompts(["a cat"])[0]
    with loaded(host, [(path, 1.0)]) as notes:
        assert not torch.equal(host.encode_prompts(["a cat"])[0], before)
    assert notes == []
    own = Made(kohya(pairs(linears(host.unet))), {}).write(tmp_path / "own.safetensors")
    both = merge(tmp_path / "both.safetensors", [(own, 1.0), (path, 1.0)]).path
    assert inspect(both).others["text encoder modules"] == 2
