"""Whether the attention that ComfyUI computes with can be trained through.

Some kernels (SageAttention, and FlashAttention as ComfyUI wraps it) have no backward pass: what
they give has no gradient, without an error. So it is tried before a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput

_TOKENS, _HEADS, _WIDTH = 64, 2, 64

Attention = Callable[..., Tensor]


def refuse_untrainable(
    attention: Attention, override: Attention | None, device: torch.device, dtype: torch.dtype
) -> None:
    """attention: `optimized_attention` of ComfyUI; override: what a node put in its place on the
    model (comfy/ldm/modules/attention.py, wrap_attn). Raises InvalidInput where no gradient comes
    through."""
    options: dict[str, Any] = {}
    if override is not None:
        options = {"transformer_options": {"optimized_attention_override": override}}
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(0)
        shape = (1, _TOKENS, _HEADS * _WIDTH)
        drawn = [torch.randn(shape, generator=generator) for _ in range(3)]
        inputs = [one.to(device, dtype).requires_grad_() for one in drawn]
        try:
            result = attention(*inputs, _HEADS, **options)
            found = torch.autograd.grad(result.float().sum(), inputs)
        except (RuntimeError, NotImplementedError) as error:
            raise _refusal(attention, override) from error
    if not all(one.isfinite().all() for one in found):
        raise _refusal(attention, override)


def _refusal(attention: Attention, override: Attention | None) -> InvalidInput:
    if override is not None:
        return InvalidInput(
            "Another node has put an attention on the model that has no gradients, so nothing "
            "would be trained. Connect the model as it is before that node."
        )
    return InvalidInput(
        f"ComfyUI computes attention by {getattr(attention, '__name__', 'a kernel')}, which has no "
        "gradients, so nothing would be trained. Start ComfyUI without --use-sage-attention and "
        "--use-flash-attention."
    )
