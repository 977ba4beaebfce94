"""The standalone host: what it gives, what it gives back, and what it keeps in memory."""

from __future__ import annotations

import hashlib
import socket
import weakref
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tests.training.runs import begin
from unziplora.checkpoints.hints import DEFAULTS
from unziplora.checkpoints.key_map import CLIP_L, VAE
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Host, SizeIds
from unziplora.hosts.standalone.generate import generate
from unziplora.hosts.standalone.host import StandaloneHost, chosen_dtype
from unziplora.lora.tensor_file import read_metadata
from unziplora.testing.random_checkpoint import Widths, write_random_model
from unziplora.training.events import Finished, Message, Previewed
from unziplora.unet.layer_names import attention_layers

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 2))
SIZE = (64, 96)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("host") / "my-pony.safetensors"
    return write_random_model(model, architecture="koala-700m", widths=TINY, resolution=256)


@pytest.fixture
def host(path: Path) -> StandaloneHost:
    return StandaloneHost.open(path, device="cpu")


def test_it_is_a_host(host: StandaloneHost, path: Path) -> None:
    as_host: Host = host
    assert as_host.model.name == "my-pony.safetensors"
    assert as_host.model.family == "Pony"
    assert as_host.model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert as_host.defaults.resolution == 256
    assert host.dtype is torch.float32
    assert not any(p.requires_grad for p in host.unet.parameters())


def test_previews_are_drawn_as_the_user_chose(
    host: StandaloneHost, image_file: Path, tmp_path: Path
) -> None:
    chosen: dict[str, Any] = {
        "preview_prompt": "a red house", "preview_negative": "fog", "preview_sampler": "Euler",
        "preview_guidance": 2.5, "preview_width": 101, "preview_height": 72,
    }  # fmt: skip
    events = list(
        begin(image_file, host, tmp_path, steps=1, preview_every=1, preview_steps=1, **chosen)
    )
    (images,) = [event.images for event in events if isinstance(event, Previewed)]
    for path in images.values():
        with Image.open(path) as image:
            text = image.info["parameters"]
            assert image.size == (104, 72), "whole latents"
        assert text.startswith("a red house")
        assert "Negative prompt: fog" in text
        assert "CFG scale: 2.5" in text


@pytest.mark.parametrize(("stated", "drawn"), [("2.5", "2.5"), ("-3", "6"), ('"a lot"', "6")])
def test_a_model_is_drawn_with_the_guidance_that_its_maker_names(
    path: Path, image_file: Path, tmp_path: Path, stated: str, drawn: str
) -> None:
    model, header = tmp_path / "own.safetensors", {DEFAULTS: f'{{"guidance": {stated}}}'}
    save_file(load_file(path), model, {**read_metadata(path), **header})
    host = StandaloneHost.open(model, device="cpu")
    events = list(begin(image_file, host, tmp_path, steps=1, preview_every=1, preview_steps=1))
    (images,) = [event.images for event in events if isinstance(event, Previewed)]
    image = generate(host, "a house", size=SIZE, steps=1)
    for text in (image.info["parameters"], Image.open(images["both"]).info["parameters"]):
        assert f"CFG scale: {drawn}," in text


def test_a_sampler_that_it_lacks_is_named_and_the_run_goes_on(
    host: StandaloneHost, image_file: Path, tmp_path: Path
) -> None:
    run = begin(image_file, host, tmp_path, steps=1, preview_every=1, preview_sampler="Heun")
    events = list(run)
    assert any("'Heun'" in event.text for event in events if isinstance(event, Message))
    assert isinstance(events[-1], Finished)


def test_shapes_of_conditionings_and_latents(host: StandaloneHost) -> None:
    context, pooled = host.encode_prompts(["a cat", "watercolor", "a cat"])
    assert (context.shape, pooled.shape) == ((3, 77, 64), (3, 32))
    assert torch.equal(context[0], context[2])
    assert not torch.equal(context[0], context[1])
    assert not torch.equal(pooled[0], pooled[1])
    added = host.added_conditioning(pooled, SizeIds((1, 2), (3, 4), (5, 6)))
    assert added["time_ids"].tolist() == [[1, 2, 3, 4, 5, 6]] * 3
    latents = host.encode_image(torch.zeros(1, 3, *SIZE), None)
    assert latents.shape == (1, 4, 8, 12)
    prediction = host.denoise(latents.expand(3, -1, -1, -1), torch.tensor([1, 2, 3]), context,
                              added)  # fmt: skip
    assert prediction.shape == (3, 4, 8, 12)
    assert torch.isfinite(prediction).all()


def test_a_prompt_means_the_same_alone_in_company_and_remembered(path: Path) -> None:
    first, second = (StandaloneHost.open(path, device="cpu") for _ in range(2))
    alone = first.encode_prompts(["a cat"])[0]
    company = second.encode_prompts(["watercolor", "a cat"])[0][1:]
    torch.testing.assert_close(alone, company)
    assert torch.equal(first.encode_prompts(["a cat"])[0], alone)


def test_a_prompt_means_the_same_whoever_asked_for_it_first(path: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rounded = StandaloneHost.open(path, device="cpu").encode_prompts(["a cat"])
    exact = StandaloneHost.open(path, device="cpu").encode_prompts(["a cat"])
    assert all(torch.equal(a, b) for a, b in zip(rounded, exact, strict=True))


def test_a_prompt_of_more_than_75_tokens_is_read_in_pieces(host: StandaloneHost) -> None:
    assert host.encode_prompts(["cat " * 75])[0].shape == (1, 77, 64)
    assert host.encode_prompts(["a dog", "cat " * 76])[0].shape == (2, 2 * 77, 64)


def test_latents_are_the_mean_or_a_sample_with_its_generator(host: StandaloneHost) -> None:
    pixels = torch.rand(1, 3, *SIZE) * 2 - 1
    mean = host.encode_image(pixels, None)
    draws = [host.encode_image(pixels, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(mean, host.encode_image(pixels, None))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], mean)
    assert 0 < (draws[0] - mean).std() < mean.std() * 3


def test_latents_are_diffusers_own_times_the_scale(host: StandaloneHost) -> None:
    pixels = torch.rand(1, 3, *SIZE) * 2 - 1
    vae: Any = host.checkpoint.vae("cpu")
    with torch.no_grad():
        wanted = vae.encode(pixels).latent_dist.mode() * 0.13025
    torch.testing.assert_close(host.encode_image(pixels, None), wanted)


def test_nan_in_latents_names_the_remedy(path: Path, tmp_path: Path) -> None:
    state = load_file(path)
    state[VAE + "encoder.conv_in.bias"][:] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    host = StandaloneHost.open(tmp_path / "nan.safetensors", device="cpu")
    with pytest.raises(UnZipLoRAError, match="makes NaN of this image"):
        host.encode_image(torch.zeros(1, 3, 64, 64), None)


def test_text_encoders_and_vae_leave_memory(
    host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[nn.Module]] = []
    for part in ("vae", "text_encoders"):
        load = getattr(host.checkpoint, part)

        def remember(*args: Any, load: Any = load) -> Any:
            made = load(*args)
            models = made if isinstance(made, tuple) else (made,)
            seen.extend(weakref.ref(m) for model in models for m in (model, *model.children()))
            return made

        monkeypatch.setattr(host.checkpoint, part, remember)
    host.encode_prompts(["a cat"])
    host.encode_image(torch.zeros(1, 3, 64, 64), None)
    host.preview("a dog", size=(64, 64), steps=1)
    with pytest.raises(InvalidInput):
        host.encode_prompts(["cat " * 999])
    assert len(seen) > 10
    assert [ref() for ref in seen if ref() is not None] == []


def test_a_preview_is_the_same_for_a_seed_and_shows_what_hangs_on_a_layer(
    host: StandaloneHost,
) -> None:
    def image(seed: int = 3) -> bytes:
        made = host.preview("a cat", negative="dog", size=SIZE, steps=2, seed=seed)
        assert isinstance(made, Image.Image)
        assert made.size == (96, 64)
        return made.tobytes()

    before = image()
    assert image() == before
    assert image(seed=4) != before
    for layer in attention_layers(host.unet).values():
        layer.forward = lambda x, forward=layer.forward: forward(x) * 3  # type: ignore[method-assign]
    assert image() != before
    for layer in attention_layers(host.unet).values():
        del layer.forward
    assert image() == before


def test_training_goes_on_after_a_preview(host: StandaloneHost) -> None:
    context, pooled = host.encode_prompts(["a cat"])
    weight = next(iter(attention_layers(host.unet).values())).weight
    weight.requires_grad_(True)

    def loss() -> torch.Tensor:
        added = host.added_conditioning(pooled, SizeIds(SIZE, (0, 0), SIZE))
        return host.denoise(torch.ones(1, 4, 8, 8), torch.tensor([5]), context, added).sum()

    before = loss()
    host.preview("a cat", size=SIZE, steps=1)
    before.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    loss().backward()  # type: ignore[no-untyped-call]
    assert not torch.is_inference(host.encode_prompts(["a cat"])[0])


def test_a_zero_terminal_snr_preview_starts_from_pure_noise(tmp_path: Path) -> None:
    model = write_random_model(
        tmp_path / "v.safetensors",
        architecture="koala-700m",
        widths=TINY,
        prediction_type="v_prediction",
        zero_snr=True,
    )
    host = StandaloneHost.open(model, device="cpu")
    times: list[float] = []
    host.unet.register_forward_pre_hook(lambda _, args: times.append(float(args[1])))
    host.preview("a cat", size=SIZE, steps=2)
    assert times[0] == 999


def test_bf16_on_the_cpu(path: Path) -> None:
    host = StandaloneHost.open(path, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in host.unet.parameters()} == {torch.bfloat16}
    context, pooled = host.encode_prompts(["a cat"])
    added = host.added_conditioning(pooled, SizeIds(SIZE, (0, 0), SIZE))
    latents = host.encode_image(torch.zeros(1, 3, *SIZE), None)
    prediction = host.denoise(latents, torch.tensor([5]), context, added)
    assert (latents.dtype, prediction.dtype) == (torch.float32, torch.bfloat16)
    host.preview("a cat", size=SIZE, steps=1)


def test_borrowing_restores_flags_and_modes_in_every_outcome(host: StandaloneHost) -> None:
    parameters, modules = list(host.unet.parameters()), list(host.unet.modules())
    parameters[3].requires_grad_(True)
    modules[7].training = True
    weights = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}

    def run() -> NoReturn:
        with host.borrow():
            assert host.borrowed
            assert not any(p.requires_grad for p in host.unet.parameters())
            assert not any(m.training for m in host.unet.modules())
            host.unet.train().requires_grad_(True)
            raise RuntimeError("mid-run")

    with pytest.raises(RuntimeError, match="mid-run"):
        run()
    assert not host.borrowed
    assert [i for i, p in enumerate(parameters) if p.requires_grad] == [3]
    assert [i for i, m in enumerate(modules) if m.training] == [7]
    assert all(torch.equal(weights[k], t) for k, t in host.unet.state_dict().items())


def test_a_model_is_borrowed_once(host: StandaloneHost) -> None:
    with (
        host.borrow(),
        pytest.raises(UnZipLoRAError, match="in use by another run"),
        host.borrow(),
    ):
        pass
    with host.borrow():
        pass


def test_nothing_goes_online(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something went online")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    folder = write_random_model(path.parent / "folder", architecture="vega", widths=TINY,
                                folder=True)  # fmt: skip
    for model in (path, folder):
        host = StandaloneHost.open(model, device="cpu")
        host.encode_prompts(["a cat"])
        host.preview("a cat", size=SIZE, steps=1)


def test_a_file_whose_text_encoder_is_damaged_says_so_when_it_is_used(
    path: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in load_file(path).items() if not k.endswith("final_layer_norm.weight")}
    assert any(k.startswith(CLIP_L) for k in state)
    save_file(state, tmp_path / "m.safetensors")
    host = StandaloneHost.open(tmp_path / "m.safetensors", device="cpu")
    with pytest.raises(InvalidInput, match="The text encoder 1 of"):
        host.encode_prompts(["a cat"])


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_a_card_that_only_emulates_bf16_gets_fp16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert chosen_dtype(torch.device("cuda")) is dtype
    assert chosen_dtype(torch.device("cpu")) is torch.float32
