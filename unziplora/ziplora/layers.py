"""Two finished LoRAs on a UNet, each alone or both with their mergers, by the flick of a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.key_layouts import Target
from unziplora.lora.mergers import with_merger
from unziplora.lora.read import LoraFile
from unziplora.method.functional import branch_delta
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.unet.changes import Changes, forward_of

Which = BranchName | Literal["merged", "none"]


@dataclass
class Mode:
    """Shared by all layers. which: the content or the style alone as its file is, both with their
    mergers, or none."""

    which: Which = "none"


@dataclass(frozen=True)
class Part:
    """What one file adds to one layer. lora: with the file's weight and alpha / r in `up`.
    merger: (in,), fp32, or None where the layer has none."""

    lora: LoraLayer
    merger: nn.Parameter | None

    def delta(self, module: nn.Module, x: Tensor, *, merged: bool) -> Tensor:
        """What is added to the layer's output for its input x, in x's dtype."""
        down, up = self.lora.down, self.lora.up
        if down.dim() == 2:
            A = with_merger(down, self.merger) if merged and self.merger is not None else down  # noqa: N806
            return branch_delta(x, A, up)
        conv: Any = module
        inner = F.conv2d(x, down.to(x.dtype), None, conv.stride, conv.padding, conv.dilation)
        return F.conv2d(inner, up.to(x.dtype))


class BothLoras:
    """The layers of a UNet that two files change. modules: of the UNet, by target. parts: content
    and style, with their weights; every layer of theirs must fit (lora/apply.py, check_fits)."""

    def __init__(
        self,
        unet: nn.Module,
        modules: Mapping[Target, nn.Module],
        parts: Sequence[tuple[LoraFile, float]],
    ) -> None:
        self.mode = Mode()
        self._unet, self._modules, self._files = unet, modules, list(parts)
        self._parts: dict[Target, dict[BranchName, Part]] = {}
        self._changes: Changes | None = None

    @property
    def has_mergers(self) -> bool:
        """Whether either file changes a linear layer."""
        changed = {target for file, _ in self._files for target in file.adapters}
        return any(_is_linear(self._modules[t]) for t in changed & self._modules.keys())

    def put_on(self) -> None:
        """In place of the layers' forwards, on the device where they are when it is first done."""
        self._parts = self._parts or self._placed()
        self._changes = Changes(self._unet)
        for target, own in self._parts.items():
            module = self._modules[target]
            self._changes.replace_forward(module, self._forward(module, own))

    def take_off(self) -> None:
        """The UNet is as it was; the mergers stay."""
        if self._changes is not None:
            self._changes.end()
            self._changes = None

    def _placed(self) -> dict[Target, dict[BranchName, Part]]:
        return {
            target: {
                role: _part(layer, weight, module)
                for role, (file, weight) in zip(BRANCHES, self._files, strict=True)
                if isinstance(layer := file.adapters.get(target), LoraLayer)
            }
            for target, module in self._modules.items()
            if any(target in file.adapters for file, _ in self._files)
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All mergers."""
        return [
            part.merger
            for own in self._parts.values()
            for part in own.values()
            if part.merger is not None
        ]

    def shared_mergers(self) -> list[tuple[Tensor, Tensor]]:
        """(content's, style's) of the layers that both change."""
        found: list[tuple[Tensor, Tensor]] = []
        for own in self._parts.values():
            mergers = [own[role].merger for role in BRANCHES if role in own]
            if len(mergers) == len(BRANCHES) and mergers[0] is not None and mergers[1] is not None:
                found.append((mergers[0], mergers[1]))
        return found

    def mergers(self) -> dict[Target, tuple[Tensor | None, Tensor | None]]:
        """By layer, (content's, style's), copies on the CPU; layers without any are left out."""
        found = {}
        for target, own in self._parts.items():
            content, style = (_copy(own[role].merger if role in own else None) for role in BRANCHES)
            if content is not None or style is not None:
                found[target] = content, style
        return found

    def _forward(
        self, module: nn.Module, own: Mapping[BranchName, Part]
    ) -> Callable[[Tensor], Tensor]:
        base, mode = forward_of(module), self.mode

        def forward(x: Tensor) -> Tensor:
            y: Tensor = base(x)
            for role, part in own.items():
                if mode.which in (role, "merged"):
                    y = y + part.delta(module, x, merged=mode.which == "merged").to(y.dtype)
            return y

        return forward


def _part(layer: LoraLayer, weight: float, module: Any) -> Part:
    shape, device = module.weight.shape, module.weight.device
    up = weight * layer.scale * layer.up.float().flatten(1)
    if _is_linear(module):
        plain = LoraLayer(layer.down.flatten(1).to(device), up.to(device), float(layer.rank))
        return Part(plain, nn.Parameter(torch.ones(shape[1], device=device)))
    down = layer.down.reshape(layer.rank, *shape[1:]).to(device)
    return Part(LoraLayer(down, up[:, :, None, None].to(device), float(layer.rank)), None)


def _is_linear(module: Any) -> bool:
    return len(module.weight.shape) == 2


def _copy(merger: Tensor | None) -> Tensor | None:
    return None if merger is None else merger.detach().cpu().clone()
