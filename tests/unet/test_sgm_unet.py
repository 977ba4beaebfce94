"""The mapping between diffusers' UNet and the real sgm one: same weights, same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.sgm_unet import make_sgm_unet
from unziplora.checkpoints.convert import export_sgm
from unziplora.checkpoints.key_map import UNET
from unziplora.host import SizeIds
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.testing.random_checkpoint import SMALL, write_random_model
from unziplora.unet.weight_cast import cast_by_layer


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return StandaloneHost.open(write_random_model(path, widths=SMALL), device="cpu")


def exported(host: StandaloneHost) -> dict[str, torch.Tensor]:
    encoders = host.checkpoint.text_encoders("cpu", torch.float32)
    tensors = export_sgm(host.unet, None, *encoders)
    return {k.removeprefix(UNET): v for k, v in tensors.items() if k.startswith(UNET)}


def test_the_exported_unet_fills_sgms_own_to_the_last_tensor(host: StandaloneHost) -> None:
    unet = make_sgm_unet(SMALL.unet, context=sum(SMALL.text), vector=SMALL.text[1] + 6 * 256)
    result = unet.load_state_dict(exported(host), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys


def test_sgm_and_diffusers_predict_the_same_noise(host: StandaloneHost) -> None:
    unet = make_sgm_unet(SMALL.unet, context=sum(SMALL.text), vector=SMALL.text[1] + 6 * 256)
    unet.load_state_dict(exported(host), strict=True)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 24, generator=generator)
    timesteps = torch.tensor([17, 930])
    context, pooled = host.encode_prompts(["a cat", "watercolor"])
    sizes = SizeIds((128, 192), (0, 8), (1024, 1024))
    added = host.added_conditioning(pooled, sizes)
    from sgm.modules.diffusionmodules.util import timestep_embedding

    ids = timestep_embedding(added["time_ids"].flatten(), 256).reshape(2, -1)
    with torch.no_grad():
        ours = host.denoise(latents, timesteps, context, added)
        theirs = unet(latents, timesteps, context=context, y=torch.cat([pooled, ids], dim=1))
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_random_sgm_unet_has_no_dead_layer(tmp_path: Path) -> None:
    unet = make_sgm_unet((32, 64, 64), depths=(1, 1, 1))
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 64)
    out = unet(latents, torch.tensor([5]), context=context, y=torch.randn(1, 32 + 6 * 256))
    out.square().sum().backward()
    dead = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    assert torch.isfinite(out).all()
    assert out.abs().sum() > 0
    assert dead == []


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
@pytest.mark.parametrize(("fp8", "alike"), [(False, 0.99), (True, 0.97)])
def test_an_sgm_unet_in_fp16_is_differentiated_in_bf16(
    fp8: bool, alike: float, device: str
) -> None:
    """On a GPU within an autocast to fp16, as A1111 calls it."""
    unet = make_sgm_unet().eval().requires_grad_(False).to(device)
    drawn = torch.manual_seed(0)
    shapes = ((1, 4, 16, 16), (1, 7, 64), (1, 32 + 6 * 256))
    x, context, y = (torch.randn(shape, generator=drawn).to(device) for shape in shapes)

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        latents = x.clone().requires_grad_()
        timesteps = torch.tensor([400], device=device)
        made = unet(latents.to(dtype), timesteps, context.to(dtype), y.to(dtype))
        made.float().square().mean().backward()
        assert latents.grad is not None
        return latents.grad

    truth = gradient(torch.float32)
    unet.half()
    with cast_by_layer(unet, {}, fp8=fp8), torch.autocast("cuda", enabled=device == "cuda"):
        found = gradient(torch.float16)
    assert torch.cosine_similarity(found.flatten(), truth.flatten(), dim=0) > alike
    assert {p.dtype for p in unet.parameters()} == {torch.float16}
    assert not any("forward" in module.__dict__ for module in unet.modules())
