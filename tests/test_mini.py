"""The miniature: it loads as any checkpoint does, draws what it is told, and can be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.quality.targets import VARIANT, Target
from mini_world.captions import article
from mini_world.emoji import sets
from mini_world.emoji.example import EXAMPLE
from mini_world.emoji.probes import judge as shipped_judge
from mini_world.emoji.things import CORE_KINDS
from mini_world.export import write_folder
from mini_world.probes import Judge
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora import python_api as api
from unziplora.host import SizeIds
from unziplora.hosts.standalone.generate import loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.training.events import StepDone
from unziplora.unet.architectures import recognise

KINDS = ["bus", "car", "cat", "house", "mushroom", "penguin"]


@pytest.fixture(scope="module")
def host() -> StandaloneHost:
    return StandaloneHost.open(mini.MODEL)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return shipped_judge()


def denoised(host: StandaloneHost) -> torch.Tensor:
    context, pooled = host.encode_prompts(["a red car in mosaic tiles style"])
    added = host.added_conditioning(pooled, SizeIds((128, 128), (0, 0), (128, 128)))
    latents = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(3))
    with torch.no_grad():
        return host.denoise(latents, torch.tensor([400]), context, added)


def test_it_is_small_enough_to_ship() -> None:
    assert mini.MODEL.stat().st_size <= 40e6


def test_it_says_what_it_is(host: StandaloneHost) -> None:
    assert recognise(host.unet, host.defaults.architecture).name == "mini"
    assert len(recognise(host.unet, host.defaults.architecture).groups) == 11
    assert host.prediction_type == "v_prediction"
    assert host.defaults.resolution == 128
    assert host.defaults.steps is not None
    assert host.defaults.lr is not None
    assert host.defaults.guidance is not None


def test_as_a_diffusers_folder_it_is_the_same_model(host: StandaloneHost, tmp_path: Path) -> None:
    write_folder(mini.MODEL, tmp_path / "mini")
    other = StandaloneHost.open(tmp_path / "mini")
    assert other.prediction_type == host.prediction_type
    assert other.defaults == host.defaults
    assert torch.equal(denoised(other), denoised(host))
    assert json.loads((tmp_path / "mini" / "model_index.json").read_text())["vae"]


def test_its_config_agrees_with_its_weights() -> None:
    import yaml
    from safetensors import safe_open

    params = yaml.safe_load(mini.MODEL.with_suffix(".yaml").read_text())["model"]["params"]
    network = params["network_config"]["params"]
    vae = params["first_stage_config"]["params"]["ddconfig"]
    unet_prefix, vae_prefix = "model.diffusion_model.", "first_stage_model."
    with safe_open(mini.MODEL, "pt") as file:

        def shape(name: str) -> list[int]:
            return list(file.get_slice(name).get_shape())

        base = network["model_channels"]
        assert shape(f"{unet_prefix}input_blocks.0.0.weight")[0] == base
        widths = [base * factor for factor in network["channel_mult"]]
        assert shape(f"{unet_prefix}middle_block.0.in_layers.2.weight")[0] == widths[-1]
        assert shape(f"{unet_prefix}label_emb.0.0.weight")[1] == network["adm_in_channels"]
        assert (
            shape(f"{unet_prefix}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight")[1]
            == network["context_dim"]
        )
        for level, factor in enumerate(vae["ch_mult"]):
            name = f"{vae_prefix}encoder.down.{level}.block.0.conv1.weight"
            assert shape(name)[0] == vae["ch"] * factor


def test_it_draws_the_class_in_the_prompt(host: StandaloneHost, judge: Judge) -> None:
    asked = [kind for kind in KINDS for _ in range(2)]
    images = Sampler(host).images([article(kind) for kind in asked], list(range(len(asked))))
    found = judge.kinds(images, CORE_KINDS)
    assert np.mean([a == b for a, b in zip(found, asked, strict=True)]) >= 0.75


def test_a_rare_token_means_nothing_before_training(host: StandaloneHost, judge: Judge) -> None:
    sampler, seeds = Sampler(host), list(range(6))
    plain = judge.content(sampler.images([article(kind) for kind in KINDS], seeds))
    rare = judge.content(sampler.images([f"a sks {kind}" for kind in KINDS], seeds))
    same = (plain * rare).sum(-1).mean()
    others = (plain @ rare.T).mean()
    assert float(same) > 0.8
    assert float(same) > float(others) + 0.3


@pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")
def test_a_short_training_moves_the_style_lora_toward_the_style(
    host: StandaloneHost, judge: Judge, tmp_path: Path
) -> None:
    """The demo's image. Who is in an image so coarse moves less than chance would."""
    target = Target("demo", EXAMPLE.who, EXAMPLE.style, EXAMPLE.variant - VARIANT)
    run = api.train(
        mini.IMAGE,
        subject=target.kind,
        style=target.style,
        host=host,
        settings={"name": "pair"},
        out=tmp_path,
    )
    losses = [event.loss for event in run if isinstance(event, StepDone)]
    assert np.mean(losses[-40:]) < np.mean(losses[:20])

    sampler = Sampler(host, steps=10)
    prompts = [
        f"{article(kind)} in {target.style} style" for kind in target.others for _ in range(2)
    ]
    reference = target.style_reference(judge)

    def nearness(loras: list[Any]) -> Any:
        """Of 16 images, (16,)."""
        with loaded(host, loras):
            images = sampler.images(prompts, list(range(len(prompts))))
        return (judge.style(images) @ reference).numpy()

    files = [(tmp_path / f"pair_{role}.safetensors", 1.0) for role in ("content", "style")]
    gain = nearness(files[1:]) - nearness([])
    assert gain.mean() > 2 * gain.std(ddof=1) / len(gain) ** 0.5  # beyond chance
    assert sorted(path.name for path, _ in files) == [
        "pair_content.safetensors",
        "pair_style.safetensors",
    ]
