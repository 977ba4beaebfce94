"""A run that begins with the LoRAs of a finished pair, and a fresh optimizer.

A file holds A and (h*m) B. So a run begins with these as A and B, with mergers of 1, and with the
columns open that are not zero in the file: what the pair does to the model is what it did, up to
the file's fp16. Columns are not chosen again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.pair import Pair
from unziplora.lora.read import read_lora
from unziplora.method.prompts import BranchName
from unziplora.training.run_folder import StartedFrom
from unziplora.training.settings import Settings
from unziplora.unet.attach import Attachment


@dataclass(frozen=True)
class FinishedPair:
    """The layers of both files by branch, and which pair they are of."""

    layers: Mapping[BranchName, Mapping[str, LoraLayer]]
    origin: StartedFrom
    method: str

    @classmethod
    def read(cls, pair: Pair) -> FinishedPair:
        """Raises InvalidInput where a file cannot be read, or its layers are of several ranks."""
        files = {branch: read_lora(path) for branch, path in pair.files.items()}
        layers = {branch: file.layers for branch, file in files.items()}
        kinds = {(layer.rank, layer.alpha) for one in layers.values() for layer in one.values()}
        if len(kinds) != 1:
            raise InvalidInput(
                f"The layers of {pair.name} have several ranks or alphas, so no run can begin with "
                "them. Choose a pair that was trained here."
            )
        info = files["content"].info
        return cls(layers, StartedFrom(pair.name, info.pair or "", info.steps), pair.method)

    def fit(self, settings: Settings) -> Settings:
        """The settings with the pair's rank and alpha. Raises InvalidInput where another method,
        rank or alpha was chosen."""
        if settings.rank_by_group:
            raise InvalidInput(
                "A run that begins with a pair has that pair's ranks. Leave out rank_by_group."
            )
        layer = self._any_layer()
        alpha = settings.alpha or layer.alpha
        for what, chosen, own, fits in (
            ("method", settings.method, self.method, settings.method == self.method),
            ("rank", settings.rank, layer.rank, settings.rank in (None, layer.rank)),
            # a file has it in fp16
            ("alpha", alpha, layer.alpha, math.isclose(alpha, layer.alpha, rel_tol=1e-3)),
        ):
            if not fits:
                raise InvalidInput(
                    f"The pair {self.origin.name} has the {what} {own}, and the run {chosen}. "
                    f"Choose {own}, or start from no pair."
                )
        return replace(settings, rank=layer.rank, alpha=layer.alpha)

    def load_into(self, attachment: Attachment) -> None:
        """The branches' weights and open columns. Raises InvalidInput where the pair is of another
        model."""
        known = {(layer, name): branch for layer, name, branch in attachment.branches()}
        found = {(layer, name) for name, own in self.layers.items() for layer in own}
        if not found <= known.keys():
            raise self._of_another_model()
        with torch.no_grad():
            for (layer, name), branch in known.items():
                lora = self.layers[name].get(layer)
                if lora is None:  # nothing was learned there
                    if branch.limited:
                        branch.mask.zero_()
                    continue
                if lora.up.shape != branch.up.shape or lora.down.shape != branch.down.shape:
                    raise self._of_another_model()
                branch.down.copy_(lora.down)
                branch.up.copy_(lora.up)
                if branch.limited:
                    branch.mask.copy_(lora.up.ne(0).any(dim=1))

    def _any_layer(self) -> LoraLayer:
        return next(layer for one in self.layers.values() for layer in one.values())

    def _of_another_model(self) -> InvalidInput:
        return InvalidInput(
            f"The pair {self.origin.name} is of another model or method, whose layers differ. "
            "Choose the checkpoint that it was trained on."
        )
