"""Prompts to SDXL's two conditionings; long ones in pieces of 75 tokens, as WebUIs read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput

TOKENS = 77  # CLIP's context: the start, 75 of the prompt, the end
MOST_PIECES = 10
_PIECE = TOKENS - 2


def encode(
    prompts: Sequence[str], tokenizers: tuple[Any, Any], encoders: tuple[nn.Module, nn.Module]
) -> list[tuple[Tensor, Tensor]]:
    """context (1, 77 k, width 1 + width 2) and pooled (1, width) of each prompt of k pieces.

    context: both encoders' last hidden states but one, side by side, piece after piece; pooled: the
    second's projection of the first piece's end token. With gradients, unless called under
    no_grad. Raises InvalidInput for a prompt of more than 750 tokens, and for one that calls a
    LoRA.
    """
    for prompt in prompts:
        refuse_calls(prompt)
    states, counts = [], [0] * len(prompts)
    pooled: Tensor | None = None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        pieces = [_pieces(tokenizer, prompt) for prompt in prompts]
        counts = [len(of_one) for of_one in pieces]
        ids = torch.tensor([piece for of_one in pieces for piece in of_one])
        device = next(encoder.parameters()).device
        output = encoder(ids.to(device), output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output[0]
    if pooled is None:
        raise ValueError("there is no text encoder")
    contexts = torch.split(torch.cat(states, dim=-1), counts)
    firsts = [projection[:1] for projection in torch.split(pooled, counts)]
    return [(c.flatten(0, 1)[None], p) for c, p in zip(contexts, firsts, strict=True)]


def pad(contexts: Sequence[Tensor], empty: Tensor) -> Tensor:
    """(n, 77 k, width) of contexts of up to k pieces; what is missing of one reads `empty`, the
    context (1, 77, width) of no words, as WebUIs do."""
    longest = max(context.shape[1] for context in contexts)
    padded = [
        torch.cat([context] + [empty] * ((longest - context.shape[1]) // TOKENS), dim=1)
        for context in contexts
    ]
    return torch.cat(padded)


def refuse_calls(prompt: str) -> None:
    """Raises InvalidInput for `<lora:NAME:1>`, which would be read as words here."""
    if found := re.search(r"<(?:lora|lyco|hypernet):[^>]*>?", prompt):
        raise InvalidInput(
            f"The prompt has {found[0][:60]}, which only WebUIs read as the call of a LoRA. "
            "Take it out, and name the LoRA's file with --lora FILE:WEIGHT."
        )


def _pieces(tokenizer: Any, prompt: str) -> list[list[int]]:
    """Each 77 token ids: start, up to 75 of the prompt, end and padding."""
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if len(ids) > MOST_PIECES * _PIECE:
        raise InvalidInput(
            f"The prompt '{prompt[:40]}...' has {len(ids)} tokens, more than "
            f"{MOST_PIECES * _PIECE}. Make it shorter."
        )
    pieces = [ids[i : i + _PIECE] for i in range(0, max(len(ids), 1), _PIECE)]
    return [
        [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id]
        + [tokenizer.pad_token_id] * (_PIECE - len(piece))
        for piece in pieces
    ]
