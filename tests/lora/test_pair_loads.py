"""What a run trained is what other programs load: our reader, diffusers, kohya's way on sgm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.sgm_unet import make_sgm_unet
from tests.torch_versions import casts_fp64
from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.checkpoints.convert import export_sgm
from unziplora.checkpoints.key_map import UNET
from unziplora.host import SizeIds
from unziplora.hosts.standalone.generate import loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.write import save_lora
from unziplora.method.methods import METHODS, table_for
from unziplora.method.prompts import BRANCHES
from unziplora.testing.random_checkpoint import SMALL, write_random_model
from unziplora.training.inputs import TrainingInputs
from unziplora.training.pair_writer import lora_layers
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer
from unziplora.unet.architectures import family, recognise
from unziplora.unet.attach import Attachment, attach, layer_shapes
from unziplora.unet.layer_names import attention_layers, kohya_name

SIZES = SizeIds((64, 64), (0, 0), (64, 64))
USES: list[dict[Any, float]] = [
    {"content": 1.0},
    {"style": 1.0},
    {"content": 1.0, "style": 1.0},
    {"content": 0.6, "style": -0.5},
]


@contextmanager
def trained(host: Any, unet: nn.Module, steps: int = 4, init: Any = "zero") -> Iterator[Trainer]:
    """A few real steps; the learning rate is high so that the effect is well above rounding."""
    settings = Settings("cat", "ink", steps=6, rank=4, lr=0.02, merger_lr=0.05).resolve()
    attachment = attach(
        unet,
        METHODS["unziplora"],
        table_for(recognise(unet).name),
        rank=4,
        alpha=4,
        init=init,
        generator=torch.Generator().manual_seed(0),
    )
    p = settings.prompts
    context, pooled = host.encode_prompts([p.combined, p.content, p.style])
    latents = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(3)).to(host.dtype)
    trainer = Trainer(host, settings, attachment, TrainingInputs(latents, context, pooled, SIZES))
    for _ in range(steps):
        trainer.advance()
    yield trainer
    attachment.detach()


def predict(host: Any, weights: Mapping[Any, float] | None = None, on: Any = None) -> Tensor:
    """The prediction for one prompt; weights: of attached branches in plain mode."""
    if on is not None:
        on.mode.use_weights(weights)
    context, pooled = host.encode_prompts(["a sks cat in ink style"])
    latents = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(9))
    added = host.added_conditioning(pooled, SIZES)
    with torch.no_grad():
        result: Tensor = host.denoise(latents, torch.tensor([400]), context, added)
    return result


def write(attachment: Attachment, unet: nn.Module, folder: Path) -> dict[Any, Path]:
    files = {}
    for branch in BRANCHES:
        files[branch] = folder / f"pair_{branch}.safetensors"
        layers = lora_layers(attachment, branch, fold_mergers=True)
        save_lora(files[branch], layers, {}, shapes=layer_shapes(unet), dtype=torch.float32)
    return files


@pytest.mark.parametrize("architecture", list(family()))
def test_the_files_do_exactly_what_was_trained(architecture: str, tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "m.safetensors", architecture=architecture)
    host = StandaloneHost.open(model, device="cpu")
    base = predict(host)
    with trained(host, host.unet) as trainer:
        expected = [predict(host, use, trainer.attachment) for use in USES]
        files = write(trainer.attachment, host.unet, tmp_path)
    assert torch.equal(predict(host), base)
    for use, wanted in zip(USES, expected, strict=True):
        with loaded(host, [(files[branch], weight) for branch, weight in use.items()]):
            got = predict(host)
        effect = (wanted - base).abs().max()
        assert effect > 1e-3
        assert (got - wanted).abs().max() < 1e-3 * effect
    assert torch.equal(predict(host), base)


class SgmHost:
    """The host's own conditioning, on sgm's UNet with the same weights."""

    def __init__(self, host: StandaloneHost) -> None:
        self._host = host
        self.unet = make_sgm_unet(SMALL.unet, context=sum(SMALL.text), vector=SMALL.text[1] + 1536)
        encoders = open_checkpoint(host.file).text_encoders("cpu", torch.float32)
        tensors = export_sgm(host.unet, None, *encoders)
        own = {k.removeprefix(UNET): v for k, v in tensors.items() if k.startswith(UNET)}
        self.unet.load_state_dict(own, strict=True)
        self.unet.requires_grad_(False)
        if host.dtype == torch.float64:
            make_double(self.unet)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Any) -> Tensor:
        from sgm.modules.diffusionmodules.util import timestep_embedding

        ids = timestep_embedding(added["time_ids"].flatten(), 256).reshape(len(latents), -1)
        y = torch.cat([added["text_embeds"], ids], dim=1)
        result: Tensor = self.unet(latents, timesteps, context=context, y=y.to(latents.dtype))
        return result


def make_double(unet: nn.Module) -> None:
    """sgm computes its group norms and time embeddings in fp32, whatever its weights are."""
    unet.double()
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = partial(nn.GroupNorm.forward, module)  # type: ignore[method-assign]
    unet.get_submodule("time_embed").register_forward_pre_hook(lambda _, x: (x[0].double(),))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[StandaloneHost, SgmHost]:
    path = write_random_model(tmp_path_factory.mktemp("sdxl") / "m.safetensors")
    host = StandaloneHost.open(path, device="cpu")
    return host, SgmHost(host)


def gradients_of_one_step(host: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss of a first step, and every gradient as it arrives at A and B."""
    with trained(host, host.unet, steps=0, init="random") as trainer:
        gradients: dict[str, Tensor] = {}

        def add(name: str, grad: Tensor) -> None:
            gradients[name] = gradients.get(name, torch.zeros_like(grad)) + grad

        for name, parameter in trainer.attachment.named_parameters():
            parameter.register_hook(partial(add, name))
        return trainer.advance().diffusion, gradients


@casts_fp64
def test_a_step_on_sgm_is_the_same_step_as_on_diffusers(tmp_path: Path) -> None:
    """In double precision: in fp32 a layer's gradient is a sum of cancelling terms, whose rounding
    depends on the processor."""
    path = write_random_model(tmp_path / "m.safetensors")
    host = StandaloneHost.open(path, device="cpu", dtype=torch.float64)
    our_loss, ours = gradients_of_one_step(host)
    their_loss, theirs = gradients_of_one_step(SgmHost(host))
    assert our_loss == pytest.approx(their_loss, rel=1e-5)
    assert ours.keys() == theirs.keys()
    assert len([name for name in ours if not name.endswith("merger")]) == 2 * 2 * 560
    for name, gradient in ours.items():
        scale = gradient.abs().max()
        assert scale > 0, name
        assert (gradient - theirs[name]).abs().max() <= 1e-4 * scale, name


def kohya_apply(unet: nn.Module, path: Path, weight: float) -> None:
    """W += weight * alpha / rank * up @ down, key by key, as kohya's merge does."""
    tensors = load_file(path)
    layers = {kohya_name(name): layer for name, layer in attention_layers(unet).items()}
    for key in tensors:
        module, _, part = key.partition(".")
        if part == "lora_down.weight":
            down, up = tensors[key], tensors[f"{module}.lora_up.weight"]
            scale = weight * float(tensors[f"{module}.alpha"]) / down.shape[0]
            with torch.no_grad():
                layers[module].weight += scale * up @ down  # type: ignore[operator]


def test_kohyas_way_on_sgm_gives_the_attached_branches_output(
    both: tuple[StandaloneHost, SgmHost], tmp_path: Path
) -> None:
    host = both[1]
    with trained(host, host.unet) as trainer:
        expected = [predict(host, use, trainer.attachment) for use in USES]
        files = write(trainer.attachment, host.unet, tmp_path)
    base = predict(host)
    before = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}
    for use, wanted in zip(USES, expected, strict=True):
        for branch, weight in use.items():
            kohya_apply(host.unet, files[branch], weight)
        effect = (wanted - base).abs().max()
        assert (predict(host) - wanted).abs().max() < 1e-3 * effect
        host.unet.load_state_dict(before)
