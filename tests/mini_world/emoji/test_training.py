"""Training on the emoji world resumes where it stopped, and learns. Random data: no set needed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from mini_world.emoji import latents as latents_of
from mini_world.emoji.clock import Clock
from mini_world.emoji.critic import Adversary
from mini_world.emoji.latents import encode_new, fingerprint
from mini_world.emoji.train import UnetTraining
from mini_world.emoji.train_all import Stages
from mini_world.emoji.vae import VaeTraining, finish
from mini_world.model import new_vae
from tests.torch_versions import fuses_on_cpu
from unziplora.scores import efficientnet


def run_dir(path: Path, images: int = 8) -> Path:
    """A folder as latents.py leaves it."""
    rng = np.random.default_rng(1)
    for part in ("core", "latents"):
        (path / part).mkdir(parents=True)
    np.save(path / "latents" / "0000.npy", rng.normal(size=(images, 4, 16, 16)).astype(np.float16))
    facts = [{"captions": ["a cat in neon sign style on a beach"], "style": "neon sign"}] * images
    (path / "core" / "0000.json").write_text(json.dumps(facts))
    return path


@fuses_on_cpu
@pytest.mark.slow
def test_a_training_resumes_with_the_same_weights_average_and_step(tmp_path: Path) -> None:
    folder, rng = run_dir(tmp_path), np.random.default_rng(0)
    first = UnetTraining(folder, "cpu", from_nothing=True)
    first.one_step(1e-3, 2, rng)
    first.save()
    again = UnetTraining(folder, "cpu")
    assert again.step == 1
    for ours, theirs in ((first.model, again.model), (first.average, again.average)):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), name
    one = first.one_step(1e-3, 2, np.random.default_rng(4))
    assert again.one_step(1e-3, 2, np.random.default_rng(4)) == one


@fuses_on_cpu
@pytest.mark.slow
def test_steps_on_one_image_lower_its_loss(tmp_path: Path) -> None:
    training = UnetTraining(run_dir(tmp_path, images=1), "cpu", from_nothing=True)
    losses = [training.one_step(1e-3, 2, np.random.default_rng(3)) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_latents_of_another_vae_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core").mkdir()
    np.save(tmp_path / "core" / "0000.npy", np.zeros((2, 128, 128, 3), np.uint8))
    monkeypatch.setattr(
        latents_of, "encode", lambda vae, images: np.zeros((len(images), 4, 16, 16))
    )
    torch.manual_seed(0)
    vae: AutoencoderKL = new_vae()
    vae.save_pretrained(tmp_path / "vae")
    assert encode_new(tmp_path) == 1
    assert encode_new(tmp_path) == 0
    with torch.no_grad():
        vae.quant_conv.bias += 1
    vae.save_pretrained(tmp_path / "vae")
    assert encode_new(tmp_path) == 1


def test_a_clock_stops_at_sigterm_and_its_cosine_falls() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        clock = Clock(minutes=60)
        assert clock.running
        assert clock.falling > 0.99
        assert not clock.due("save", every=1)
        signal.raise_signal(signal.SIGTERM)
        assert not clock.running
        assert not Clock(minutes=0.0).running
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


def test_stages_that_are_finished_are_left_out_and_a_stopped_one_has_less_time(
    tmp_path: Path,
) -> None:
    path, left = tmp_path / "stages.json", []

    def work(result: bool) -> object:
        return lambda minutes: left.append(minutes) or result

    first = Stages.read(path)
    assert first.run("a", 10, work(True))  # type: ignore[arg-type]
    assert not first.run("b", 10, work(False))  # type: ignore[arg-type]
    again = Stages.read(path)
    again.spent["b"] = 4.0
    assert again.run("a", 10, work(True))  # type: ignore[arg-type]
    assert again.run("b", 10, work(True))  # type: ignore[arg-type]
    assert left == [10, 10, 6]
    assert Stages.read(path).finished == ["a", "b"]


@pytest.mark.slow
@pytest.mark.skipif(bool(efficientnet.missing()), reason=efficientnet.missing() or "installed")
def test_sharpening_changes_the_decoder_and_leaves_the_latents_as_they_are(tmp_path: Path) -> None:
    training = VaeTraining(tmp_path, "cpu", sharpen=True)
    assert training.adversary is not None
    training.adversary.step = 1000  # past its warm-up: the decoder hears it
    before = {name: value.clone() for name, value in training.vae.state_dict().items()}
    mark = fingerprint(training.vae)
    truth = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    training.one_step(truth, 1e-3)
    assert fingerprint(training.vae) == mark
    after = training.vae.state_dict()
    assert not torch.equal(after["decoder.conv_in.weight"], before["decoder.conv_in.weight"])
    training.save()
    again = VaeTraining(tmp_path, "cpu", sharpen=True)
    assert again.adversary is not None
    assert again.adversary.step == 1001
    images = np.random.default_rng(0).integers(0, 255, (12, 128, 128, 3), np.uint8)
    finish(again, [images], images, images, tmp_path)
    assert fingerprint(AutoencoderKL.from_pretrained(tmp_path / "vae")) == mark


def test_a_critic_learns_to_tell_noise_from_flat_images() -> None:
    torch.manual_seed(0)
    adversary = Adversary(torch.device("cpu"))
    flat, noise = torch.zeros(4, 3, 32, 32), torch.randn(4, 3, 32, 32)
    assert float(adversary.error(flat)) == 0  # it knows nothing yet
    losses = [adversary.learn(noise, flat) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert adversary.critic(flat).mean() > adversary.critic(noise).mean()
