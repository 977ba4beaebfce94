"""Models on disk: written, recognised, loaded, and given back tensor for tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.torch_versions import OLD
from unziplora.checkpoints.checkpoint import load_vae, open_checkpoint
from unziplora.checkpoints.convert import export_sgm
from unziplora.checkpoints.identify import identify
from unziplora.checkpoints.key_map import UNET, VAE
from unziplora.errors import InvalidInput
from unziplora.host import SizeIds
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.testing.random_checkpoint import Widths, write_random_model
from unziplora.unet.architectures import family, recognise

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 2))
ARCHITECTURES = list(family())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A single file of each architecture."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: write_random_model(
            folder / f"{name}.safetensors", architecture=name, widths=TINY, resolution=256
        )
        for name in ARCHITECTURES
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_is_recognised_and_gives_back_every_tensor(
    models: dict[str, Path], name: str
) -> None:
    file = identify(models[name])
    assert file.architecture == family()[name]
    assert (file.prediction_type, file.zero_snr) == ("epsilon", False)
    assert file.defaults.resolution == 256

    checkpoint = open_checkpoint(file)
    unet = checkpoint.unet("cpu", torch.float16)
    assert recognise(unet, file.defaults.architecture) == file.architecture
    vae = checkpoint.vae("cpu")
    encoders = checkpoint.text_encoders("cpu", torch.float16)
    exported = export_sgm(unet, vae.half(), *encoders)
    written = load_file(models[name])
    assert exported.keys() == written.keys()
    assert all(torch.equal(exported[key], written[key]) for key in written)
    assert all(written[key].any() for key in written)


@pytest.mark.parametrize("name", ["sdxl", "koala-700m"])
def test_a_folder_of_the_same_weights_predicts_the_same(
    models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = write_random_model(
        tmp_path / "model", architecture=name, widths=TINY, folder=True, resolution=256
    )
    hosts = [StandaloneHost.open(path, device="cpu") for path in (models[name], folder)]
    assert hosts[0].file.architecture == hosts[1].file.architecture
    assert hosts[1].defaults.resolution == 256
    latents = torch.randn(1, 4, 8, 8)
    predictions = []
    for host in hosts:
        context, pooled = host.encode_prompts(["a cat"])
        added = host.added_conditioning(pooled, SizeIds((64, 64), (0, 0), (64, 64)))
        predictions.append(host.denoise(latents, torch.tensor([400]), context, added))
    if OLD:  # equal but for rounding there
        torch.testing.assert_close(*predictions, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(*predictions)
    assert 0.2 < predictions[0].std() < 5
    assert torch.equal(hosts[0].alphas_cumprod, hosts[1].alphas_cumprod)


def test_diffusers_own_loader_reads_the_folder_too(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    folder = write_random_model(tmp_path / "model", widths=TINY, folder=True)
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), local_files_only=True)
    ours = StandaloneHost.open(folder, device="cpu")
    theirs = pipeline.unet.state_dict()
    assert all(torch.equal(t.float(), theirs[k].float()) for k, t in ours.unet.state_dict().items())
    with torch.no_grad():
        wanted = pipeline.encode_prompt("a cat, watercolor", negative_prompt="photo")
    context, pooled = ours.encode_prompts(["a cat, watercolor", "photo"])
    torch.testing.assert_close(context, torch.cat(wanted[:2]).float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pooled, torch.cat(wanted[2:]).float(), rtol=1e-3, atol=1e-3)


def edited(path: Path, new: Path, metadata: dict[str, str] | None = None, **tensors: Any) -> Path:
    """The model at `path` with tensors added, or with None removed by the name's beginning."""
    state = load_file(path)
    for name, tensor in tensors.items():
        if tensor is None:
            state = {key: value for key, value in state.items() if not key.startswith(name)}
        else:
            state[name] = tensor
    save_file(state, new, metadata)
    return new


def test_noobai_markers_say_velocity_and_zero_terminal_snr(
    models: dict[str, Path], tmp_path: Path
) -> None:
    path = edited(
        models["vega"],
        tmp_path / "noobai.safetensors",
        v_pred=torch.tensor([]),
        ztsnr=torch.tensor([]),
    )
    host = StandaloneHost.open(path, device="cpu")
    assert host.prediction_type == "v_prediction"
    assert host.alphas_cumprod.shape == (1000,)
    assert host.alphas_cumprod[-1] == 0
    assert host.file.family == "NoobAI"
    assert StandaloneHost.open(path, prediction_type="epsilon").prediction_type == "epsilon"


def test_markers_written_by_ourselves_are_read_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prediction_type": "v_prediction", "zero_snr": True}
    for folder in (False, True):
        path = tmp_path / ("folder" if folder else "v.safetensors")
        write_random_model(path, architecture="vega", widths=TINY, folder=folder, **options)
        file = identify(path)
        assert (file.prediction_type, file.zero_snr) == ("v_prediction", True)


def test_an_epsilon_model_keeps_sdxls_own_schedule(models: dict[str, Path]) -> None:
    alphas = StandaloneHost.open(models["vega"], device="cpu").alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(alphas, torch.cumprod(1 - betas, 0))


def test_modelspec_says_the_prediction(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    edited(models["vega"], path, {"modelspec.prediction_type": "v"})
    assert identify(path).prediction_type == "v_prediction"
    edited(models["vega"], path, {"modelspec.prediction_type": "epsilon"})
    assert identify(path).prediction_type == "epsilon"
    with pytest.raises(InvalidInput, match="predicts 'rectified flow'"):
        identify(edited(models["vega"], path, {"modelspec.prediction_type": "rectified flow"}))
    assert identify(path, "epsilon").prediction_type == "epsilon"
    with pytest.raises(InvalidInput, match="no prediction type 'x0'"):
        identify(path, "x0")


def test_the_webuis_config_beside_a_file_is_read(models: dict[str, Path], tmp_path: Path) -> None:
    path = edited(models["vega"], tmp_path / "m.safetensors")
    path.with_suffix(".yaml").write_text(
        "model:\n  params:\n    scale_factor: 0.5\n"
        "    denoiser_config: {params: {scaling_config: {target: sgm.denoiser_scaling.VScaling}}}\n"
        "    network_config: {params: {num_head_channels: 32}}\n"
    )
    file = identify(path)
    assert (file.head_channels, file.vae_scale) == (32, 0.5)
    assert file.prediction_type == "v_prediction"
    unet: Any = open_checkpoint(file).unet("cpu", torch.float32)
    assert unet.config.attention_head_dim == [1, 2, 2]
    path.with_suffix(".yaml").write_text("- 3")
    with pytest.raises(InvalidInput, match=r"m\.yaml, the config beside the model"):
        identify(path)


def test_weights_stored_as_fp8_are_cast(models: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(models["vega"])
    for name, tensor in state.items():
        if name.startswith(UNET) and tensor.ndim > 1:
            state[name] = tensor.to(torch.float8_e4m3fn)
    save_file(state, tmp_path / "fp8.safetensors")
    host = StandaloneHost.open(tmp_path / "fp8.safetensors", device="cpu")
    assert {p.dtype for p in host.unet.parameters()} == {torch.float32}


def test_an_external_vae_is_a_file_of_either_naming_or_a_folder(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source = write_random_model(tmp_path / "other", architecture="vega", widths=TINY, seed=7,
                                folder=True)  # fmt: skip
    single = write_random_model(tmp_path / "other.safetensors", architecture="vega", widths=TINY,
                                seed=7)  # fmt: skip
    ldm = {k.removeprefix(VAE): v for k, v in load_file(single).items() if k.startswith(VAE)}
    save_file(ldm, tmp_path / "ldm.safetensors")
    files = [
        tmp_path / "ldm.safetensors",
        source / "vae" / "diffusion_pytorch_model.safetensors",
        source / "vae",
        source,
        single,
    ]
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    own = StandaloneHost.open(models["vega"], device="cpu").encode_image(pixels, None)
    latents = [
        StandaloneHost.open(models["vega"], vae=file, device="cpu").encode_image(pixels, None)
        for file in files
    ]
    assert all(torch.equal(latents[0], other) for other in latents[1:])
    assert not torch.equal(latents[0], own)
    with pytest.raises(InvalidInput, match="is not a VAE"):
        load_vae(write_lora(tmp_path / "l.safetensors"), "cpu")
    with pytest.raises(InvalidInput, match="There is no VAE"):
        StandaloneHost.open(models["vega"], vae=tmp_path / "none.safetensors")


def write_lora(path: Path) -> Path:
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2)}, path)
    return path


def test_a_file_without_a_vae_needs_one_named(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "no-vae.safetensors"
    write_random_model(path, architecture="vega", widths=TINY, vae=False)
    with pytest.raises(InvalidInput, match=r"has no VAE in it\. Name one with --vae"):
        StandaloneHost.open(path)
    host = StandaloneHost.open(path, vae=models["vega"], device="cpu")
    assert host.encode_image(torch.zeros(1, 3, 64, 64), None).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (UNET + "middle_block.0.in_layers.0.weight", "UNet"),
        (UNET + "out.2.bias", "UNet"),
        (VAE + "decoder.conv_out.bias", "VAE"),
        ("conditioner.embedders.1.model.ln_final.weight", "text encoder 2"),
        ("conditioner.embedders.0.transformer.text_model.embeddings.token_emb", "text encoder 1"),
    ],
)
def test_a_tensor_too_few_is_a_damaged_part(
    models: dict[str, Path], tmp_path: Path, name: str, what: str
) -> None:
    path = edited(models["vega"], tmp_path / "m.safetensors", **{name: None})
    with pytest.raises(InvalidInput, match=rf"The {what} of m\.safetensors is damaged"):
        load_all(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (UNET + "input_blocks.4.2.weight", "UNet"),
        (VAE + "encoder.extra.weight", "VAE"),
        ("conditioner.embedders.1.model.visual.proj", "text encoder 2"),
    ],
)
def test_a_tensor_too_many_is_an_unknown_kind(
    models: dict[str, Path], tmp_path: Path, name: str, what: str
) -> None:
    path = edited(models["vega"], tmp_path / "m.safetensors", **{name: torch.ones(2, 2)})
    with pytest.raises(InvalidInput, match=rf"The {what} of m.safetensors is .* it has "):
        load_all(path)


def load_all(path: Path) -> None:
    checkpoint = open_checkpoint(identify(path))
    checkpoint.unet("cpu", torch.float32)
    checkpoint.text_encoders("cpu", torch.float32)
    checkpoint.vae("cpu")


def test_leftovers_of_other_programs_do_no_harm(models: dict[str, Path], tmp_path: Path) -> None:
    extra = {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77),
        "conditioner.embedders.1.model.logit_scale": torch.ones(()),
        "model_ema.decay": torch.ones(()),
        "denoiser.sigmas": torch.ones(1000),
    }
    load_all(edited(models["vega"], tmp_path / "m.safetensors", **extra))


def test_there_are_five_architectures_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no architecture 'sd15'"):
        write_random_model(tmp_path / "m.safetensors", architecture="sd15")
    assert not [*tmp_path.iterdir()]
