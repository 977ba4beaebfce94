"""An external VAE is one for the model, or is refused before anything is trained on its latents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.testing.random_checkpoint import write_random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae") / "m.safetensors"
    return write_random_model(path, architecture="vega")


def vae_folder(path: Path, **config: Any) -> Path:
    AutoencoderKL(
        block_out_channels=(32,) * 4, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, **config,
    ).save_pretrained(path)  # fmt: skip
    return path


FLUX = {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (FLUX, "its latents have 16 channels"),
        ({"scaling_factor": 0.18215}, "scales latents by 0.18"),
    ],
)
def test_a_folder_of_another_model_is_refused_at_once(
    config: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=said):
        StandaloneHost.open(model, vae=vae_folder(tmp_path / "vae", **config), device="cpu")


@pytest.mark.parametrize("names", ["ldm", "diffusers"])
def test_a_file_of_another_model_is_refused_at_once(
    names: str, model: Path, tmp_path: Path
) -> None:
    folder = vae_folder(tmp_path / "vae", **FLUX)
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    if names == "ldm":
        tensors = {
            "decoder.mid.block_1.conv1.weight": torch.zeros(1),
            "decoder.conv_in.weight": tensors["decoder.conv_in.weight"],
        }
    save_file(tensors, tmp_path / "ae.safetensors")
    with pytest.raises(InvalidInput, match="its latents have 16 channels"):
        StandaloneHost.open(model, vae=tmp_path / "ae.safetensors", device="cpu")


def test_a_folder_without_a_factor_takes_the_models(model: Path, tmp_path: Path) -> None:
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    folder = vae_folder(tmp_path / "vae", scaling_factor=0.13025)
    stated = StandaloneHost.open(model, vae=folder, device="cpu").encode_image(pixels, None)
    config = json.loads((folder / "config.json").read_text())
    del config["scaling_factor"], config["latent_channels"]
    (folder / "config.json").write_text(json.dumps(config))
    silent = StandaloneHost.open(model, vae=folder, device="cpu").encode_image(pixels, None)
    assert torch.equal(stated, silent)


def test_a_folder_without_a_config_or_with_nonsense_is_refused(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInput, match=r"no config\.json"):
        StandaloneHost.open(model, vae=empty, device="cpu")
    for nonsense in ("x", None, [1], -0.13025, float("nan")):
        config = {"latent_channels": 4, "scaling_factor": nonsense}
        (empty / "config.json").write_text(json.dumps(config))
        with pytest.raises(InvalidInput, match="scales latents"):
            StandaloneHost.open(model, vae=empty, device="cpu")
