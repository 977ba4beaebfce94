"""Prompts to SDXL's two conditionings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput

TOKENS = 77  # CLIP's context: the start, 75 of the prompt, the end


@torch.no_grad()
def encode(
    prompts: Sequence[str], tokenizers: tuple[Any, Any], encoders: tuple[nn.Module, nn.Module]
) -> tuple[Tensor, Tensor]:
    """context (n, 77, width 1 + width 2): both encoders' last hidden states but one, side by side;
    pooled (n, width): the second's projection of the end token.

    Raises InvalidInput for a prompt of more than 77 tokens.
    """
    states = []
    pooled: Tensor | None = None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        for prompt in prompts:
            _check_length(tokenizer, prompt)
        ids = tokenizer(
            list(prompts), padding="max_length", max_length=TOKENS, return_tensors="pt"
        ).input_ids
        device = next(encoder.parameters()).device
        output = encoder(ids.to(device), output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output[0]
    if pooled is None:
        raise ValueError("there is no text encoder")
    return torch.cat(states, dim=-1), pooled


def _check_length(tokenizer: Any, prompt: str) -> None:
    length = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
    if length > TOKENS:
        raise InvalidInput(
            f"The prompt '{prompt[:40]}...' is {length - TOKENS} tokens longer than CLIP's "
            f"{TOKENS}. Make it shorter."
        )
