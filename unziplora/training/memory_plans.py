"""Memory plans: what is traded for memory, as data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from unziplora.unet.attach import Attachment
from unziplora.unet.recompute import Recompute, recomputed
from unziplora.unet.weight_cast import cast_by_layer, in_fp16

SMALL_UNET = 200_000_000  # parameters; fits unrecomputed wherever its program runs


@dataclass(frozen=True)
class Plan:
    """What a run keeps, and in which precision.

    slowdown: the share by which a step is expected to take longer than one of `full`
    (docs/performance.md). recompute: what the backward pass makes again (unet/recompute.py).
    kept_blocks: of "blocks", how many are not made again as a whole: as many as what is free
    allows. away: inputs of blocks wait in the computer's memory. eight_bit: Adam's moments in 8
    bits. in_backward: A and B are updated while the backward pass runs
    (training/fused_backward.py), in bf16 where the base is fp16: loss scaling looks at all
    gradients before the first update. fp8_base: the UNet's weights in fp8. lora_dtype: of A and B.
    """

    name: str
    slowdown: float = 0.0
    recompute: Recompute = "blocks"
    kept_blocks: int = 0
    away: bool = False
    eight_bit: bool = True
    in_backward: bool = False
    fp8_base: bool = False
    lora_dtype: torch.dtype = torch.float32

    @contextmanager
    def on(self, unet: nn.Module, attachment: Attachment) -> Iterator[None]:
        """The UNet under this plan; everything is put back at the end."""
        with ExitStack() as stack:
            cast = self.fp8_base or (self.in_backward and in_fp16(unet))
            if cast:
                pairs = attachment.pairs_by_layer()
                stack.enter_context(cast_by_layer(unet, pairs, fp8=self.fp8_base))
            if self.recompute != "cheap" or not is_small(unet):
                again = recomputed(
                    unet, self.recompute, self.kept_blocks, away=self.away, cast=cast
                )
                stack.enter_context(again)
            attachment.mode.text_products.clear()  # another precision makes others
            yield


def is_small(unet: nn.Module) -> bool:
    """Whether a UNet has memory to spare everywhere: what is cheap to make again on a large one
    costs a quarter of a step on it."""
    return sum(parameter.numel() for parameter in unet.parameters()) < SMALL_UNET


# From the fastest to the smallest.
PLANS = {
    plan.name: plan
    for plan in (
        Plan("full", 0.0, "cheap", eight_bit=False),
        Plan("selective", 0.12, "products"),
        Plan("checkpoint", 0.39),
        Plan("low", 0.46, away=True, in_backward=True, lora_dtype=torch.bfloat16),
        Plan("lowest", 0.88, away=True, in_backward=True, fp8_base=True, lora_dtype=torch.bfloat16),
    )
}
