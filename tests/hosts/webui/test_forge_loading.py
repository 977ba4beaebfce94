"""What Forge says of checkpoints that it cannot load, in a sentence that names them; and latents
that are the same for the same seed, whatever a relative of Forge calls its options."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hosts.webui.conftest import StandIn
from unziplora.errors import InvalidInput
from unziplora.hosts.webui.forge import ForgeHost
from unziplora.hosts.webui.forge_neo import ForgeNeoHost


@pytest.fixture
def choose(stand_in: StandIn) -> Any:
    """A Forge in which this checkpoint is chosen, and loading it does this."""

    def choose(filename: str | None, load: Any) -> SimpleNamespace:
        info = None if filename is None else SimpleNamespace(filename=filename)
        data = SimpleNamespace(
            sd_model=object(), forge_hash="", forge_loading_parameters={"checkpoint_info": info}
        )
        stand_in.fill("sd_models", model_data=data, forge_model_reload=load)
        stand_in.fill("call_queue", queue_lock=contextlib.nullcontext())
        stand_in.fill("shared", sd_model="the loaded model")
        return data

    return choose


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError("You do not have CLIP state dict!"), "AssertionError: You do not have"),
        (ValueError("Failed to recognize model type!"), "ValueError: Failed to recognize"),
        (KeyError("model"), "KeyError: 'model'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_named_with_the_reason(
    choose: Any, error: Exception, reason: str
) -> None:
    def load() -> None:
        raise error

    choose("/models/flux unet only.safetensors", load)
    expected = rf"flux unet only\.safetensors cannot be loaded \({reason}.*\)\. Choose an SDXL"
    with pytest.raises(InvalidInput, match=expected):
        ForgeHost.chosen_model()


def test_where_none_is_chosen_that_is_said_and_nothing_is_loaded(choose: Any) -> None:
    choose(None, lambda: pytest.fail("was loaded"))
    with pytest.raises(InvalidInput, match="No checkpoint is chosen"):
        ForgeHost.chosen_model()


def test_the_chosen_checkpoint_is_loaded_when_a_run_needs_it(choose: Any) -> None:
    choose("/models/a.safetensors", lambda: None)
    assert ForgeHost.chosen_model() == "the loaded model"


@pytest.mark.parametrize("hashed", [False, True])  # ersatzForge keeps a hash
def test_a_loaded_model_is_seen_without_loading_one(choose: Any, hashed: bool) -> None:
    data = choose("/models/a.safetensors", lambda: pytest.fail("was loaded"))
    assert ForgeHost.loaded_model() is None
    parameters = str(data.forge_loading_parameters)
    data.forge_hash = hash(parameters) if hashed else parameters
    assert ForgeHost.loaded_model() is None  # what stands in for a model before the first is loaded
    data.sd_model = SimpleNamespace(forge_objects="parts")
    assert ForgeHost.loaded_model() is data.sd_model


class DiagonalGaussianDistribution:
    """As in backend/nn/vae.py:15."""

    def __init__(self, moments: Tensor) -> None:
        self.mean, logarithm = moments.chunk(2, dim=1)
        self.std = torch.exp(0.5 * logarithm)

    def sample(self) -> Tensor:
        return self.mean + self.std * torch.randn(self.mean.shape)


class AutoencoderKL(torch.nn.Module):
    """As Neo's: it samples in any case (its backend/nn/vae.py:303)."""

    def encode(self, x: Tensor) -> Tensor:
        return DiagonalGaussianDistribution(x).sample()

    def process_in(self, latents: Tensor) -> Tensor:
        return latents * 0.5


class Vae:
    def __init__(self, model: torch.nn.Module) -> None:
        self.first_stage_model = model

    def encode(self, pixels: Tensor) -> Tensor:
        return self.first_stage_model.encode(pixels.movedim(-1, 1))  # type: ignore[operator, no-any-return]


class Parts(SimpleNamespace):
    def shallow_copy(self) -> Parts:
        return Parts(**vars(self))


def forge_with(model: torch.nn.Module, host: type[ForgeHost]) -> ForgeHost:
    """A host of which only the VAE is there."""
    unet = torch.nn.Conv2d(4, 4, 1)
    parts = Parts(vae=Vae(model), unet=SimpleNamespace(model=SimpleNamespace(diffusion_model=unet)))
    memory = SimpleNamespace(
        get_torch_device=lambda: "cpu",
        unload_all_models=lambda: None,
        load_model_gpu=lambda patcher: None,
        load_models_gpu=lambda patchers, force_full_load: None,
    )

    class OnlyVae(host):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self._model = SimpleNamespace(forge_objects=parts, forge_objects_original=parts)
            self._normal = contextlib.ExitStack()

        def _memory(self) -> Any:
            return memory

    return OnlyVae()  # type: ignore[no-any-return]


@pytest.mark.parametrize("host", [ForgeHost, ForgeNeoHost])
def test_the_same_seed_gives_the_same_latents_and_none_the_mean(host: type[ForgeHost]) -> None:
    forge = forge_with(AutoencoderKL(), host)
    pixels = torch.linspace(-1, 1, 8 * 4 * 4).reshape(1, 8, 4, 4)
    seeded = [forge.encode_image(pixels, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert seeded[0].equal(seeded[1])
    mean = forge.encode_image(pixels, None)
    assert mean.equal((pixels[:, :4] * 0.5 + 0.5) * 0.5)
    assert not mean.equal(seeded[0])


def test_a_vae_that_samples_in_another_way_is_refused_before_a_run_is_wrong() -> None:
    class Strange(AutoencoderKL):
        def encode(self, x: Tensor) -> Tensor:
            return x[:, :4] + torch.randn(x[:, :4].shape)

    forge = forge_with(Strange(), ForgeHost)
    with pytest.raises(Exception, match="encodes images in a way that UnZipLoRA does not know"):
        forge.encode_image(torch.zeros(1, 8, 4, 4), None)


def test_layers_that_the_webui_keeps_off_the_gpu_are_refused() -> None:
    forge = forge_with(AutoencoderKL(), ForgeHost)
    unet = forge.unet
    unet.register_parameter("away", torch.nn.Parameter(torch.empty(2, device="meta")))
    with pytest.raises(Exception, match=r"keeps 1 of the 3 weights.*Raise GPU Weights"):
        forge.encode_image(torch.zeros(1, 8, 4, 4), None)
