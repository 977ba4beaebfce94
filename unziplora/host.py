"""What training asks of a host: the model it lends, and six things it does with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor, nn

PredictionType = Literal["epsilon", "v_prediction"]
USUAL_GUIDANCE = 6.0


@dataclass(frozen=True)
class ModelIdentity:
    """Which checkpoint this is, without saying where it lies.

    name: base name of its file or folder; sha256: of the file's bytes, or None where a host
    knows none; family: what a hub calls its base model ("SDXL 1.0", "Pony", ...), or None.
    """

    name: str
    sha256: str | None = None
    family: str | None = None


@dataclass(frozen=True)
class SizeIds:
    """SDXL's micro-conditioning, in pixels as (height, width) or (top, left)."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class Defaults:
    """What a run takes from the model where the user says nothing; None: as in the paper.

    resolution: pixels, the side of the square that the model was trained on; steps, rank, lr: what
    suits a model that is much smaller than SDXL; architecture: which one it says it is, where its
    layers alone do not tell (unet/architectures.py); guidance: with which it is drawn, None: the
    program's own.
    """

    resolution: int = 1024
    steps: int | None = None
    rank: int | None = None
    lr: float | None = None
    architecture: str | None = None
    guidance: float | None = None

    @property
    def usual_guidance(self) -> float:
        """With which images are drawn where nobody chose: the model's own, else SDXL's usual."""
        return self.guidance or USUAL_GUIDANCE


class Host(Protocol):
    """A program that has an SDXL-family model and lends it for a run.

    Tensors go in and come out on `device`; `denoise` computes in the base's own dtype.
    """

    @property
    def unet(self) -> nn.Module: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def prediction_type(self) -> PredictionType: ...

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,), fp32: the model's own noise schedule."""

    @property
    def model(self) -> ModelIdentity: ...

    @property
    def defaults(self) -> Defaults:
        """What suits this model; `Defaults()` for one of SDXL's size."""

    def borrow(self) -> AbstractContextManager[None]:
        """Lends the model clean (no LoRA applied, frozen) and takes it back untouched."""

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, tokens, width) and pooled (n, width); text encoders leave memory after."""

    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), scaled, of pixels (1, 3, h, w) in [-1, 1].

        The mean of the VAE's posterior where generator is None, else a sample drawn with it
        (a CPU generator). The VAE leaves memory after.
        """

    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Any:
        """What `denoise` needs beside the context; pooled (n, width)."""

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Any) -> Tensor:
        """The UNet's prediction (n, 4, h, w) for latents at timesteps (n,), grads enabled."""

    def preview(
        self, prompt: str, *, negative: str, size: tuple[int, int], steps: int, seed: int
    ) -> Image.Image:
        """An image of (height, width) = size by the host's own sampler, from the UNet as it is.
        Its `info["parameters"]`, where there is one, is an infotext (images/infotext.py).

        A host that lets its user choose them also takes `sampler: str` and `guidance: float`, which
        are passed only where they were chosen.
        """


@runtime_checkable
class SharedHost(Protocol):
    """What a host has besides where others wait for its model, who can go first between two
    steps."""

    def wanted(self) -> bool:
        """Whether somebody waits for the model who may have it now."""

    def give_way(self, ended: Callable[[], bool]) -> bool:
        """Within `borrow`: takes the model back as `borrow` does, lets those who wait use it, and
        lends it again. False, and it is not lent again, where `ended()` becomes true meanwhile.

        Raises UnZipLoRAError where the model is another one afterwards.
        """


class LearnableEncoders(Protocol):
    """A host's two text encoders, in memory and frozen. A vector stands in for a word's own token
    embedding in each of the two."""

    def vectors_of(self, word: str) -> tuple[Tensor, Tensor]:
        """(width 1,) and (width 2,), fp32 copies. Raises InvalidInput where the word is not one
        token."""

    def encode(
        self, prompt: str, vectors: Mapping[str, tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """context (1, tokens, width) and pooled (1, width), through which the vectors get their
        gradients."""

    def drawn_with(
        self, prompts: Sequence[str], vectors: Mapping[str, tuple[Tensor, Tensor]]
    ) -> AbstractContextManager[None]:
        """The host's previews of these prompts are drawn with these vectors meanwhile."""


@runtime_checkable
class EncoderHost(Protocol):
    """What a host has besides where words can be learned through its text encoders."""

    def learnable_encoders(self) -> AbstractContextManager[LearnableEncoders]:
        """Within `borrow`: both encoders, which leave memory at the end."""
