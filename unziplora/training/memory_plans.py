"""Memory plans: what is traded for memory, as data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from unziplora.unet.attach import Attachment
from unziplora.unet.patches import checkpointed
from unziplora.unet.weight_cast import cast_by_layer, in_fp16


@dataclass(frozen=True)
class Plan:
    """checkpointing: blocks are recomputed in the backward pass, which takes about half as long
    again and far less memory. in_backward: Adam's moments in 8 bits, and A and B updated while the
    backward pass runs (training/fused_backward.py), in bf16 where the base is fp16: loss scaling
    looks at all gradients before the first update. fp8_base: the UNet's weights in fp8.
    lora_dtype: of A and B.
    """

    name: str
    checkpointing: bool = True
    in_backward: bool = False
    fp8_base: bool = False
    lora_dtype: torch.dtype = torch.float32

    @contextmanager
    def on(self, unet: nn.Module, attachment: Attachment) -> Iterator[None]:
        """The UNet under this plan; everything is put back at the end."""
        with ExitStack() as stack:
            if self.fp8_base or (self.in_backward and in_fp16(unet)):
                pairs = attachment.pairs_by_layer()
                stack.enter_context(cast_by_layer(unet, pairs, fp8=self.fp8_base))
            if self.checkpointing:
                stack.enter_context(checkpointed(unet))
            attachment.mode.text_products.clear()  # another precision makes others
            yield


# From the fastest to the smallest.
PLANS = {
    plan.name: plan
    for plan in (
        Plan("full", checkpointing=False),
        Plan("checkpoint"),
        Plan("low", in_backward=True),
        Plan("lowest", in_backward=True, fp8_base=True, lora_dtype=torch.bfloat16),
    )
}
