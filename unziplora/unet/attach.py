"""Branches on a UNet: attach and detach are exact inverses, on sgm's and diffusers' alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.method.blocks import BlockTable
from unziplora.method.branches import Branch, BranchPair, Init
from unziplora.method.forward_mode import ForwardMode
from unziplora.method.methods import Method
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.unet.changes import Changes, forward_of
from unziplora.unet.layer_names import attention_layers, group_of, reads_text


class Attachment:
    """The pairs of one UNet, by sgm layer name, and the mode that they share."""

    def __init__(
        self, unet: nn.Module, layers: Mapping[str, nn.Module], pairs: Mapping[str, BranchPair]
    ) -> None:
        self._layers = dict(layers)
        self.pairs = dict(pairs)
        self.mode = next(iter(self.pairs.values())).mode
        self._unet = unet
        self.put_on()

    def put_on(self) -> None:
        """The branches stand beside their layers, as they do at first."""
        self._changes = Changes(self._unet)
        try:
            for name, layer in self._layers.items():
                self._changes.replace_forward(layer, self.pairs[name].forward)
        except BaseException:
            self._changes.end()
            raise

    def take_off(self) -> None:
        """Every layer's forward is what it was, also where a host had put one on the instance; safe
        to call twice. The branches can be put on again."""
        self._changes.end()
        self.mode.text_products.clear()

    def detach(self) -> None:
        """Takes the branches off for good."""
        self.take_off()
        self._layers.clear()

    def pairs_by_layer(self) -> dict[nn.Module, BranchPair]:
        """What stands in for the forward of each layer."""
        return {layer: self.pairs[name] for name, layer in self._layers.items()}

    def cast(self, dtype: torch.dtype) -> None:
        """A and B in another dtype: new parameters, without gradients or hooks."""
        for _, _, branch in self.branches():
            branch.down = nn.Parameter(branch.down.detach().to(dtype))
            branch.up = nn.Parameter(branch.up.detach().to(dtype))

    def branches(self) -> Iterator[tuple[str, BranchName, Branch]]:
        """(layer, branch name, branch), in the order of the layers' names."""
        for layer, pair in self.pairs.items():
            for name, branch in pair.branches.items():
                yield layer, name, branch

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """`layer:branch:down`, `:up` and `:merger`, in the order of the layers' names."""
        for layer, name, branch in self.branches():
            yield f"{layer}:{name}:down", branch.down
            yield f"{layer}:{name}:up", branch.up
            yield f"{layer}:{name}:merger", branch.merger


def layer_shapes(unet: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every attention projection, by sgm name."""
    return {name: _shape(layer) for name, layer in attention_layers(unet).items()}


def attach(
    unet: nn.Module,
    method: Method,
    table: BlockTable,
    *,
    rank: int,
    alpha: float,
    init: Init,
    generator: torch.Generator,
    ranks: Mapping[str, int] | None = None,
) -> Attachment:
    """Puts a pair of branches beside each attention projection that the method trains.

    generator: a CPU generator for the branches' start. Branches are fp32, on the layer's device.
    ranks: of groups that have their own; their alpha is such that alpha / rank is the same.
    Raises InvalidInput where the rank is above a layer's size.
    """
    mode = ForwardMode()
    layers, pairs = {}, {}
    for name, layer in attention_layers(unet).items():
        out_features, in_features = _shape(layer)
        group = group_of(name)
        own_rank = (ranks or {}).get(group, rank)
        if own_rank > min(out_features, in_features):
            raise InvalidInput(
                f"Rank {own_rank} is above the size of the layer {name} ({out_features} x "
                f"{in_features}). Choose at most {min(out_features, in_features)}."
            )
        branches: dict[BranchName, Branch] = {}
        for branch in BRANCHES:
            if method.trains(branch, group):
                branches[branch] = Branch(
                    in_features,
                    out_features,
                    own_rank,
                    alpha if own_rank == rank else alpha * own_rank / rank,
                    limited=method.limits(branch, group, table),
                    device=cast(Tensor, layer.weight).device,
                )
                branches[branch].initialise(init, generator)
        if branches:
            layers[name] = layer
            pairs[name] = BranchPair(forward_of(layer), branches, mode, reads_text=reads_text(name))
    return Attachment(unet, layers, pairs)


def _shape(layer: nn.Module) -> tuple[int, int]:
    out_features, in_features = cast(Tensor, layer.weight).shape
    return out_features, in_features
