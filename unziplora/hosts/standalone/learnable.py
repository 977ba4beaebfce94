"""Words whose token embeddings are learned (textual inversion), through both text encoders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.text import encode

Vectors = Mapping[str, tuple[Tensor, Tensor]]


class LearnableWords:
    """`LearnableEncoders` of host.py. embedded: the host knows these embeddings of prompts, and no
    others, meanwhile."""

    def __init__(
        self,
        tokenizers: tuple[Any, Any],
        encoders: tuple[nn.Module, nn.Module],
        embedded: Callable[[dict[str, tuple[Tensor, Tensor]]], AbstractContextManager[None]],
    ) -> None:
        self._tokenizers, self._encoders, self._embedded = tokenizers, encoders, embedded

    @property
    def size(self) -> int:
        """Bytes of both encoders."""
        return sum(p.numel() * p.element_size() for e in self._encoders for p in e.parameters())

    def vectors_of(self, word: str) -> tuple[Tensor, Tensor]:
        first, second = (
            _embedding(encoder).weight[number].detach().float().clone()
            for encoder, number in zip(self._encoders, self._numbers(word), strict=True)
        )
        return first, second

    def encode(self, prompt: str, vectors: Vectors) -> tuple[Tensor, Tensor]:
        kind = next(self._encoders[0].parameters()).device.type
        with torch.autocast(kind, enabled=False), self._in_place(self._encoders, vectors):
            ((context, pooled),) = encode([prompt], self._tokenizers, self._encoders)
        return context, pooled

    @contextlib.contextmanager
    def drawn_with(self, prompts: Sequence[str], vectors: Vectors) -> Iterator[None]:
        with torch.no_grad():
            embeddings = {prompt: self.encode(prompt, vectors) for prompt in ("", *prompts)}
        with self._embedded(embeddings):
            yield

    @contextlib.contextmanager
    def _in_place(self, encoders: Sequence[nn.Module], vectors: Vectors) -> Iterator[None]:
        """Wherever a word's token stands, its vector does."""
        with contextlib.ExitStack() as stack:
            for number, encoder in enumerate(encoders):
                own = {self._numbers(word)[number]: pair[number] for word, pair in vectors.items()}
                hook = _embedding(encoder).register_forward_hook(_replacement(own))
                stack.callback(hook.remove)
            yield

    def _numbers(self, word: str) -> tuple[int, int]:
        """The word's token for each encoder."""
        found = [
            tokenizer(word, add_special_tokens=False).input_ids for tokenizer in self._tokenizers
        ]
        if any(len(ids) != 1 for ids in found):
            raise InvalidInput(
                f"The word {word!r} is not one token of CLIP's, so no embedding can begin with it. "
                "Choose a common short word."
            )
        first, second = (int(ids[0]) for ids in found)
        return first, second


def _embedding(encoder: Any) -> nn.Embedding:
    embedding: nn.Embedding = encoder.get_input_embeddings()
    return embedding


def _replacement(vectors: Mapping[int, Tensor]) -> Callable[..., Tensor]:
    def replace(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        for number, vector in vectors.items():
            here = (inputs[0] == number)[..., None]
            output = torch.where(here, vector.to(output), output)
        return output

    return replace
