"""Another prompt for one attention group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import SizeIds
from unziplora.unet.layer_names import attention_layers, group_of, reads_text
from unziplora.unet.prompt_swap import other_context

GROUP = "output_blocks.1.1"


def test_only_the_named_group_reads_the_other_prompt_and_afterwards_none_does(host: Any) -> None:
    context, pooled = host.encode_prompts(["a cat", "a house"])
    first, second = context[:1], context[1:]
    before = denoised(host, first, pooled[:1])
    with other_context(host.unet, GROUP, second), listening(host.unet) as read:
        during = denoised(host, first, pooled[:1])
    for name, context_read in read.items():
        expected = second if group_of(name) == GROUP else first
        assert torch.equal(context_read, expected), name
    assert {group_of(name) for name in read} > {GROUP}
    assert not torch.equal(before, during)
    assert torch.equal(before, denoised(host, first, pooled[:1]))


def test_a_group_that_is_not_there_is_refused(host: Any) -> None:
    context, _ = host.encode_prompts(["a cat"])
    with (
        pytest.raises(InvalidInput, match=r"output_blocks\.9\.1"),
        other_context(host.unet, "output_blocks.9.1", context),
    ):
        pass


@contextmanager
def listening(unet: Any) -> Iterator[dict[str, Tensor]]:
    """What each layer that reads text is given, by name."""
    read: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: read.__setitem__(name, given[0])
        )
        for name, layer in attention_layers(unet).items()
        if reads_text(name)
    ]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def denoised(host: Any, context: Tensor, pooled: Tensor) -> Tensor:
    side = host.defaults.resolution
    added = host.added_conditioning(pooled, SizeIds((side, side), (0, 0), (side, side)))
    latents = torch.randn(1, 4, side // 8, side // 8, generator=torch.manual_seed(0))
    made: Tensor = host.denoise(latents, torch.tensor([500]), context, added)
    return made
