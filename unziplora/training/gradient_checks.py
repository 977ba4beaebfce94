"""A run that would silently learn nothing is stopped."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unziplora.errors import TrainingFailed
from unziplora.method.prompts import BranchName
from unziplora.unet.attach import Attachment


def require_gradients(
    attachment: Attachment, norm_of: Callable[[nn.Parameter], float | None], part: str
) -> None:
    """Of each layer one that is not cut off, and of each LoRA one that is not zero: a single
    layer's may be too small for its dtype, as under a softmax that has a single winner.

    norm_of: of a parameter's gradient, None where there is none. part: "down", "up" or "merger".
    Raises TrainingFailed.
    """
    norms: dict[BranchName, dict[str, float | None]] = {}
    for layer, name, branch in attachment.branches():
        if part != "merger" or branch.mask.any():
            norms.setdefault(name, {})[layer] = norm_of(getattr(branch, part))
    for name, by_layer in norms.items():
        nothing = not any(by_layer.values())
        for layer, norm in by_layer.items():
            if norm is None or nothing:
                raise TrainingFailed(
                    f"The layer {layer} gets no gradient for its {name} LoRA ({part}), so it would "
                    "learn nothing. Another extension or attention option may be in the way; turn "
                    "it off, or report this with the run's log."
                )
