"""How much a LoRA changes the weights it is added to: dW/W, beside every score.

A LoRA that changes little also leaks little; without this number a cautious rate looks clean.
"""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn

from unziplora.lora.inspect import inspect
from unziplora.unet.layer_names import attention_layers


def relative_change(path: Path, unet: nn.Module) -> float:
    """|dW| / |W|, Frobenius norms over all attention projections of the UNet."""
    changed = sum(group.norm**2 for group in inspect(path).groups)
    whole = sum(_squared_norm(layer) for layer in attention_layers(unet).values())
    return math.sqrt(changed / whole)


def _squared_norm(layer: nn.Module) -> float:
    assert isinstance(layer.weight, Tensor)
    return float(layer.weight.detach().double().pow(2).sum())
