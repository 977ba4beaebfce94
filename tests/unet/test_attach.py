"""Attach and detach are exact inverses; prompts reach K and V of cross-attention only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unziplora.host import SizeIds
from unziplora.method.methods import METHODS, table_for
from unziplora.unet.attach import Attachment, attach
from unziplora.unet.layer_names import attention_layers, group_of, reads_text
from unziplora.unet.patches import frozen

TOGETHER = METHODS["unziplora"].passes[0]


def attach_to(unet: Any, method: str = "unziplora", init: Any = "random") -> Attachment:
    return attach(
        unet,
        METHODS[method],
        table_for("sdxl-like"),
        rank=2,
        alpha=2,
        init=init,
        generator=torch.Generator().manual_seed(0),
    )


def contexts(host: Any) -> dict[Any, Tensor]:
    context, _ = host.encode_prompts(["a sks cat in ink style", "a sks cat", "an image in ink"])
    return {name: context[i : i + 1] for i, name in enumerate(("combined", "content", "style"))}


def predict(host: Any, context: Tensor) -> Tensor:
    _, pooled = host.encode_prompts(["a sks cat in ink style"])
    added = host.added_conditioning(pooled, SizeIds((64, 64), (0, 0), (64, 64)))
    latents = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(1))
    result: Tensor = host.denoise(latents, torch.tensor([500]), context, added)
    return result


@contextmanager
def inputs_of(host: Any) -> Iterator[tuple[Attachment, dict[str, list[Tensor]]]]:
    """What each branch's A is multiplied with, by layer."""
    seen: dict[str, list[Tensor]] = {}
    attachment = attach_to(host.unet)
    for layer, pair in attachment.pairs.items():
        delta = pair.delta

        def spy(x: Tensor, weights: Any, layer: str = layer, delta: Any = delta) -> Tensor:
            for branch in weights:
                seen.setdefault(f"{layer}:{branch}", []).append(x)
            result: Tensor = delta(x, weights)
            return result

        pair.delta = spy  # type: ignore[method-assign]
    attachment.mode.set_contexts(contexts(host))
    attachment.mode.use_pass(TOGETHER)
    yield attachment, seen
    attachment.detach()


def test_detach_is_the_exact_inverse_of_attach(host: Any) -> None:
    context = contexts(host)["combined"]
    modules = {name: dict(module.__dict__) for name, module in host.unet.named_modules()}
    with torch.no_grad():
        before = predict(host, context)
        attachment = attach_to(host.unet)
        attachment.mode.use_weights({"content": 1.0, "style": 1.0})
        assert not torch.equal(predict(host, context), before)
        attachment.mode.use_weights({})
        assert torch.equal(predict(host, context), before)
        attachment.detach()
        attachment.detach()
        assert torch.equal(predict(host, context), before)
    for name, module in host.unet.named_modules():
        assert module.__dict__.keys() == modules[name].keys()


def test_a_forward_that_the_host_had_set_comes_back(host: Any) -> None:
    layer = next(iter(attention_layers(host.unet).values()))
    original = layer.forward
    hooked = lambda x: original(x) + 1  # noqa: E731
    layer.forward = hooked  # type: ignore[method-assign]
    attachment = attach_to(host.unet)
    assert layer.forward is not hooked
    attachment.detach()
    assert layer.forward is hooked


def test_prompt_separation_reaches_k_and_v_of_cross_attention_only(host: Any) -> None:
    texts = contexts(host)
    with inputs_of(host) as (_, seen), torch.no_grad():
        predict(host, texts["combined"])
    for key, inputs in seen.items():
        layer, branch = key.split(":")
        assert len(inputs) == 1
        if reads_text(layer):
            assert torch.equal(inputs[0], texts[branch])
        else:
            assert inputs[0] is seen[f"{layer}:content"][0]  # one hidden state for both


def test_in_plain_mode_every_layer_sees_the_one_prompt(host: Any) -> None:
    texts = contexts(host)
    with inputs_of(host) as (attachment, seen), torch.no_grad():
        attachment.mode.use_weights({"content": 1.0, "style": 1.0})
        predict(host, texts["style"])
    for key, inputs in seen.items():
        if reads_text(key.split(":")[0]):
            assert torch.equal(inputs[0], texts["style"])


def test_the_base_reads_the_combined_prompt_whatever_context_comes_in(host: Any) -> None:
    texts = contexts(host)
    attachment = attach_to(host.unet)
    attachment.mode.set_contexts(texts)
    attachment.mode.use_pass(TOGETHER)
    with torch.no_grad():
        given = predict(host, texts["combined"])
        assert torch.equal(given, predict(host, torch.zeros_like(texts["combined"])))


def test_b_lora_puts_one_branch_on_each_of_its_two_groups(host: Any) -> None:
    attachment = attach_to(host.unet, "b-lora")
    placed = {(name, group_of(layer)) for layer, name, _ in attachment.branches()}
    assert placed == {("content", "output_blocks.0.1"), ("style", "output_blocks.1.1")}


def test_frozen_puts_every_flag_back(host: Any) -> None:
    parameters = list(host.unet.parameters())
    parameters[3].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        with frozen(host.unet):
            assert not any(parameter.requires_grad for parameter in parameters)
            raise RuntimeError
    except RuntimeError:
        pass
    assert flags == [parameter.requires_grad for parameter in parameters]


def test_a_forward_exchanged_on_the_class_meanwhile_is_the_one_that_is_called(
    host: Any, monkeypatch: Any
) -> None:
    """A1111 does so while it casts by hand, and when its page is loaded anew."""
    attachment = attach_to(host.unet)
    attachment.mode.use_weights({})
    name, layer = next(iter(attention_layers(host.unet).items()))
    x = torch.randn(1, 3, attachment.pairs[name].branches["content"].down.shape[1])
    monkeypatch.setattr(type(layer), "forward", lambda self, x: x * 0 + 7)
    assert layer(x).eq(7).all()
    attachment.detach()
