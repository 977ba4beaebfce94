"""An attention through which nothing would be trained is found before a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.hosts.comfyui.attention import refuse_untrainable

CPU, FP32 = torch.device("cpu"), torch.float32


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """ComfyUI's signature: (1, tokens, heads * width), and an override as wrap_attn calls it."""
    if override := options.get("transformer_options", {}).get("optimized_attention_override"):
        result: Tensor = override(attention, q, k, v, heads)
        return result
    split = [one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def attention_sage(*inputs: Any, **options: Any) -> Tensor:
    """As a kernel without a backward pass: its result has no history."""
    with torch.no_grad():
        return attention(*inputs, **options)


def attention_half(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """Has a history, but none of keys."""
    return attention(q, k.detach(), v, heads)


def test_torchs_own_attention_can_be_trained_through() -> None:
    refuse_untrainable(attention, None, CPU, FP32)


def test_it_is_tried_also_where_a_node_runs() -> None:
    with torch.inference_mode():
        refuse_untrainable(attention, None, CPU, FP32)


@pytest.mark.parametrize("kernel", [attention_sage, attention_half])
def test_a_kernel_without_gradients_is_refused_by_name(kernel: Any) -> None:
    with pytest.raises(InvalidInput, match=f"by {kernel.__name__}, which has no gradients"):
        refuse_untrainable(kernel, None, CPU, FP32)


def test_so_is_one_that_a_node_put_on_the_model() -> None:
    def override(_: Any, *inputs: Any) -> Tensor:
        return attention_sage(*inputs)

    with pytest.raises(InvalidInput, match="Another node has put an attention on the model"):
        refuse_untrainable(attention, override, CPU, FP32)
    refuse_untrainable(attention, lambda plain, *inputs: plain(*inputs), CPU, FP32)
