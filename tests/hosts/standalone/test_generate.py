"""Images with LoRAs, applied by value (files of others: tests/field/test_lora_layouts.py)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.hosts.standalone.generate import generate, loaded, save_image
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.testing.random_checkpoint import Widths, write_random_model
from unziplora.unet.architectures import family
from unziplora.unet.layer_names import attention_layers, kohya_name

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 2))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StandaloneHost]:
    folder = tmp_path_factory.mktemp("generate")
    return {
        name: StandaloneHost.open(
            write_random_model(folder / f"{name}.safetensors", architecture=name, widths=TINY),
            device="cpu",
        )
        for name in family()
    }


@pytest.fixture
def host(hosts: dict[str, StandaloneHost]) -> StandaloneHost:
    return hosts["koala-700m"]


def write_lora(path: Path, host: StandaloneHost, *, seed: int = 0, **extra: torch.Tensor) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(extra)
    for layer, module in attention_layers(host.unet).items():
        out, width = module.weight.shape
        name = kohya_name(layer)
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, width, generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, 2, generator=generator) * 0.3
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    return path


def test_a_lora_is_loaded_without_a_word(
    host: StandaloneHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lora = write_lora(tmp_path / "l.safetensors", host)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make(host, (lora, 1.0), (lora, 1.0))
    assert caplog.text == ""


def make(host: StandaloneHost, *loras: tuple[Path, float], **options: Any) -> Image.Image:
    return generate(host, "a cat", loras=loras, steps=2, size=(64, 96), **options)


def test_two_loras_change_the_image_and_at_weight_0_not_a_bit(
    host: StandaloneHost, tmp_path: Path
) -> None:
    content = write_lora(tmp_path / "content.safetensors", host, seed=1)
    style = write_lora(tmp_path / "style.safetensors", host, seed=2)
    without = make(host).tobytes()
    images = [
        make(host, *loras).tobytes()
        for loras in (
            [(content, 1.0)],
            [(style, 1.0)],
            [(content, 1.0), (style, 1.0)],
            [(content, 1.0), (style, 0.5)],
        )
    ]
    assert len({without, *images}) == 5
    assert make(host, (content, 0.0), (style, 0.0)).tobytes() == without
    assert make(host).tobytes() == without


def test_two_files_of_one_name_are_two_loras(host: StandaloneHost, tmp_path: Path) -> None:
    one = write_lora(tmp_path / "a" / "same.safetensors", host, seed=1)
    two = write_lora(tmp_path / "b" / "same.safetensors", host, seed=2)
    both = make(host, (one, 1.0), (two, 1.0)).tobytes()
    assert both != make(host, (one, 1.0)).tobytes()
    assert both != make(host, (two, 1.0)).tobytes()
    twice, double = make(host, (one, 1.0), (one, 1.0)), make(host, (one, 2.0))
    assert max(high for _, high in ImageChops.difference(twice, double).getextrema()) <= 2


@pytest.mark.parametrize("name", list(family()))
def test_every_layer_of_every_architecture_gets_exactly_its_product(
    hosts: dict[str, StandaloneHost], tmp_path: Path, name: str
) -> None:
    host = hosts[name]
    path = write_lora(tmp_path / "l.safetensors", host)
    tensors = load_file(path)
    layers = attention_layers(host.unet)
    inputs = {layer: torch.randn(3, module.weight.shape[1]) for layer, module in layers.items()}
    before = {layer: module(inputs[layer]) for layer, module in layers.items()}
    with loaded(host, [(path, 0.5)]):
        wrapped = attention_layers(host.unet)
        after = {layer: wrapped[layer](x) for layer, x in inputs.items()}
    for layer, x in inputs.items():
        down, up = (tensors[f"{kohya_name(layer)}.lora_{d}.weight"] for d in ("down", "up"))
        wanted = before[layer] + 0.5 * 0.5 * x @ down.T @ up.T  # weight, alpha / rank
        torch.testing.assert_close(after[layer], wanted, rtol=1e-4, atol=1e-4)
    assert attention_layers(host.unet) == layers


def test_the_image_says_how_it_was_made(host: StandaloneHost, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "my-style.safetensors", host)
    image = make(host, (lora, 0.8), negative="blurry", seed=5, guidance=4.0)
    save_image(image, tmp_path / "out.png")
    prompt, negative, words = Image.open(tmp_path / "out.png").info["parameters"].split("\n")
    assert prompt == "a cat <lora:my-style:0.8>"
    assert negative == "Negative prompt: blurry"
    sha256 = host.model.sha256
    assert sha256 is not None
    beginning = (
        "Steps: 2, Sampler: Euler, CFG scale: 4, Seed: 5, Size: 96x64, "
        f"Model hash: {sha256[:10]}, Model: koala-700m, "
    )
    assert words.startswith(beginning + 'Lora hashes: "my-style: ')
    save_image(image, tmp_path / "out.jpg")
    assert Image.open(tmp_path / "out.jpg").format == "JPEG"


def test_a_lora_of_another_architecture_is_refused_and_leaves_nothing(
    hosts: dict[str, StandaloneHost], tmp_path: Path
) -> None:
    host = hosts["koala-700m"]
    without = make(host).tobytes()
    for other in ("sdxl", "vega", "koala-1b"):
        lora = write_lora(tmp_path / "other.safetensors", hosts[other])
        with pytest.raises(InvalidInput, match=r"other\.safetensors fit this model"):
            make(host, (lora, 1.0))
        assert make(host).tobytes() == without


def test_what_is_no_lora(host: StandaloneHost, tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    for name in ("x.safetensors", "nothing.safetensors"):
        with pytest.raises(InvalidInput):
            make(host, (tmp_path / name, 1.0))
    with pytest.raises(InvalidInput, match="100 x 64 pixels"):
        generate(host, "a cat", size=(64, 100))
    with pytest.raises(InvalidInput, match="0 sampling steps"):
        generate(host, "a cat", steps=0)


def test_not_while_a_run_has_the_model(host: StandaloneHost) -> None:
    with host.borrow(), pytest.raises(UnZipLoRAError, match="in use by another run"):
        make(host)


def test_a_image_is_saved_only_where_and_as_what_it_can_be(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(InvalidInput, match="does not end like an image's name"):
        save_image(image, tmp_path / "out")
    with pytest.raises(InvalidInput, match=r"folder of out\.png does not exist"):
        save_image(image, tmp_path / "none" / "out.png")
