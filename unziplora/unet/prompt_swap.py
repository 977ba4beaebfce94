"""Another prompt for one attention group: how one finds out what a group takes from the text.

B-LoRA (arXiv 2403.14572, section 4.1) and InstantStyle found SDXL's content and style blocks so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.unet.changes import Changes
from unziplora.unet.layer_names import attention_layers, group_of, reads_text
from unziplora.unet.patches import add_pre_hook


@contextlib.contextmanager
def other_context(unet: nn.Module, group: str, context: Tensor) -> Iterator[None]:
    """Cross-attention of one group reads `context` (n, tokens, width) whatever the UNet is given.

    group: its sgm name, as "output_blocks.1.1"; n: the batch that the UNet will run, with guidance
    both halves. Raises InvalidInput for a group that the UNet does not have.
    """
    layers = [
        layer
        for name, layer in attention_layers(unet).items()
        if group_of(name) == group and reads_text(name)
    ]
    if not layers:
        raise InvalidInput(
            f"This UNet has no attention group {group}. See its names in unet/layer_names.py."
        )

    def replace(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (context.to(inputs[0].dtype), *inputs[1:])

    with Changes(unet) as changes:
        for layer in layers:
            add_pre_hook(changes, layer, replace)
        yield
