"""ZipLoRA's mergers (Shah et al., ECCV 2024, arXiv 2311.13600): a factor for each column of a LoRA.

    dW = w_c dW_c diag(m_c) + w_s dW_s diag(m_s)

The columns are those of torch's weight, (out, in): one for each input of the layer, unlike
UnZipLoRA's, which belong to the outputs. So a merger goes into A, and the rank stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.key_layouts import Target
from unziplora.lora.read import LoraFile


@dataclass(frozen=True)
class Learned:
    """What was learned of two files. mergers: of each layer that has them, (in,) for each file that
    changes the layer, None for one that does not. weights: the files' weights that it was learned
    with. record: for the header of the merged file."""

    mergers: Mapping[Target, tuple[Tensor | None, Tensor | None]]
    weights: tuple[float, float]
    record: Mapping[str, object]

    def applied_to(self, files: Sequence[tuple[LoraFile, float]]) -> list[LoraFile]:
        """The files with weights and mergers folded into their layers, in the same order. Raises
        ValueError for files with other weights."""
        if tuple(weight for _, weight in files) != self.weights:
            raise ValueError("the mergers were learned with other weights")
        return [
            replace(file, adapters={
                target: _folded(layer, weight, self.mergers.get(target, (None, None))[number])
                for target, layer in file.adapters.items() if isinstance(layer, LoraLayer)
            })
            for number, (file, weight) in enumerate(files)
        ]  # fmt: skip


def _folded(layer: LoraLayer, weight: float, merger: Tensor | None) -> LoraLayer:
    down = layer.down.float() if merger is None else with_merger(layer.down, merger)
    return replace(layer, down=down, up=weight * layer.up.float())


def with_merger(down: Tensor, merger: Tensor) -> Tensor:
    """A diag(m), (r, in) in fp32, in A's shape. merger: (in,)."""
    factors = merger.to(down.device)
    return down.float() * factors.view(1, -1, *[1] * (down.dim() - 2))


def overlap(mergers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """|m_c * m_s| of layers that both change: the mean over all of their columns. The paper has the
    sum, at which its lambda of 0.01 would outweigh a mean squared error by far; its public
    implementation (mkshing/ziplora-pytorch) has the mean too."""
    if not mergers:
        return torch.zeros(())
    return torch.cat([(content * style).abs() for content, style in mergers]).mean()
