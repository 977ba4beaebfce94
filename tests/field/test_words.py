"""Words as people type them make sensible prompts and triggers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.method.prompts import Prompts, content_trigger, style_trigger
from unziplora.testing.random_checkpoint import Widths, write_random_model


@pytest.mark.parametrize(
    ("style", "trigger"),
    [
        ("watercolor", "watercolor style"),
        ("watercolor style", "watercolor style"),
        ("watercolor Style", "watercolor style"),
        ("anime-style", "anime style"),
        ("in watercolor style", "watercolor style"),
        ("a watercolor painting", "watercolor painting style"),
        ("in the style of Monet", "the style of Monet"),
        ("style of Monet", "the style of Monet"),
        ("in a style of Monet", "the style of Monet"),
        ("by Monet", "the style of Monet"),
        ("Monet's style", "Monet's style"),
        ("ink.", "ink style"),
        ("ink  wash", "ink wash style"),
        ("style", "style style"),  # nothing is left out that would leave nothing
        ("by", "by style"),
        ("a", "a style"),
        ("indigo", "indigo style"),
        ("bystander", "bystander style"),
        ("hairstyle", "hairstyle style"),
        ("🎨", "🎨 style"),
        ("水彩画", "水彩画 style"),
    ],
)
def test_a_style_is_named_once(style: str, trigger: str) -> None:
    assert style_trigger(style) == trigger
    prompts = Prompts.from_words("cat", style, "sks", style_names_class=False)
    assert prompts.style == f"an image in {trigger}"
    assert prompts.combined == f"a sks cat in {trigger}"


@pytest.mark.parametrize(
    ("subject", "trigger"),
    [
        ("cat", "sks cat"), ("a cat", "sks cat"), ("A cat", "sks cat"), ("the cat", "sks cat"),
        ("my cat", "sks cat"), ("sks cat", "sks cat"), ("a sks cat", "sks cat"),
        ("cat, ", "sks cat"), ("an owl", "sks owl"), ("that old  car", "sks old car"),
        ("a", "sks a"), ("animal", "sks animal"), ("theatre", "sks theatre"), ("sks", "sks sks"),
        ("this", "sks this"), ("🦊", "sks 🦊"),
    ],
)  # fmt: skip
def test_a_subject_has_one_article(subject: str, trigger: str) -> None:
    assert content_trigger(subject, "sks") == trigger
    prompts = Prompts.from_words(subject, "ink", "sks", style_names_class=True)
    assert prompts.content == f"a {trigger}"
    assert prompts.style == f"a {trigger.removeprefix('sks ')} in ink style"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    widths = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (1, 2))
    write_random_model(path, architecture="koala-700m", widths=widths, dtype=torch.float32)
    return StandaloneHost.open(path, device="cpu")


def test_a_long_prompt_is_read_in_pieces(host: StandaloneHost) -> None:
    first, second = "red " * 75, "a blue dog"
    context, pooled = host.encode_prompts([first + second, "a cat"])
    assert context.shape[:2] == (2, 2 * 77)
    apart, pooled_apart = host.encode_prompts([first, second, "a cat", ""])
    assert apart.shape[:2] == (4, 77)
    torch.testing.assert_close(context[0], torch.cat([apart[0], apart[1]]))
    torch.testing.assert_close(context[1], torch.cat([apart[2], apart[3]]))
    torch.testing.assert_close(pooled[0], pooled_apart[0])
    torch.testing.assert_close(pooled[1], pooled_apart[2])


def test_a_prompt_without_end_is_refused(host: StandaloneHost) -> None:
    with pytest.raises(InvalidInput, match="has 900 tokens, more than 750"):
        host.encode_prompts(["cat " * 900])


@pytest.mark.parametrize(
    "prompt", ["a cat <lora:ink_style:0.8>", "<lyco:x:1> a cat", "a <hypernet:x> cat", "<lora:x"]
)
def test_the_call_of_a_lora_is_not_read_as_words(host: StandaloneHost, prompt: str) -> None:
    with pytest.raises(InvalidInput, match="which only WebUIs read as the call of a LoRA"):
        host.encode_prompts([prompt])


def test_a_smaller_sign_alone_is_no_call(host: StandaloneHost) -> None:
    host.encode_prompts(["a cat <3", "lora:x"])


def test_the_image_of_a_long_prompt_is_drawn(host: StandaloneHost, tmp_path: Path) -> None:
    image = host.preview("a cat, " * 40, negative="blurry", size=(64, 64), steps=1)
    assert image.size == (64, 64)
