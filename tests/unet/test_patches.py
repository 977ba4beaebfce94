"""What a borrowed UNet is refused for, by the kind of its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.unet.patches import frozen, normal_tensors


class Q8_0:  # noqa: N801 (Forge's names of GGUF's kinds)
    pass


class Q4_K:  # noqa: N801
    pass


class ParameterGGUF(nn.Parameter):
    """Of Forge, in two lines: raw bytes, and the kind that they are of."""

    gguf_cls: Any = None


class Params4bit(nn.Parameter):
    """Of bitsandbytes, as far as its type tells."""


def layer_with(weight: Tensor) -> nn.Module:
    layer = nn.Linear(4, 4)
    layer._parameters["weight"] = weight  # as hosts' loaders do
    return layer


def gguf(kind: Any) -> ParameterGGUF:
    weight = ParameterGGUF(torch.zeros(4, 8, dtype=torch.uint8), requires_grad=False)
    weight.gguf_cls = kind
    return weight


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Params4bit(torch.zeros(8, 1)), "Params4bit"),
        (lambda: gguf(Q4_K), "GGUF Q4_K"),
        (lambda: nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False), "int8"),
    ],
)
def test_quantised_weights_are_refused_wherever_they_were_made(
    make: Any, kind: str, inference: bool
) -> None:
    """A host's loader makes them under inference_mode; moved by another thread they no longer
    are."""
    with torch.inference_mode(inference):
        layer = layer_with(make())
    for borrow in (frozen, normal_tensors):
        with pytest.raises(InvalidInput, match=f"quantised weights .{kind}"), borrow(layer):
            pytest.fail("it was borrowed")


@pytest.mark.parametrize("make", [
    lambda: gguf(Q8_0), lambda: gguf(None),
    lambda: nn.Parameter(torch.zeros(4, 4, dtype=torch.float8_e4m3fn), requires_grad=False),
    lambda: nn.Parameter(torch.zeros(4, 4, dtype=torch.bfloat16)),
])  # fmt: skip
def test_weights_that_train_well_are_taken(make: Any) -> None:
    layer = layer_with(make())
    weight = layer.weight
    with normal_tensors(layer), frozen(layer):
        assert layer.weight is weight
