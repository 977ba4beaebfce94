"""What a run takes from the model where the user leaves it open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from unziplora.host import Defaults
from unziplora.unet.attach import layer_shapes


@dataclass(frozen=True)
class ModelTraits:
    """defaults: what suits the model. narrowest: the smallest side of its attention projections,
    SDXL's where nothing else is known."""

    defaults: Defaults = Defaults()  # noqa: RUF009 (frozen)
    narrowest: int = 640

    @classmethod
    def of(cls, unet: nn.Module, defaults: Defaults) -> ModelTraits:
        """Of a UNet of either layout, also on the meta device."""
        return cls(defaults, min(min(shape) for shape in layer_shapes(unet).values()))


class ModelInfo(NamedTuple):
    """Of the model that a run would get. unet: on the meta device, where it is not loaded yet.
    freed: bytes of its device that hold other parts now, which a run moves away first."""

    unet: nn.Module
    device: torch.device
    defaults: Defaults
    freed: int = 0
