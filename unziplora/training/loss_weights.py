"""What a step's loss counts for each branch: weights by timestep and branch, from a step on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unziplora.host import PredictionType
from unziplora.method.gradient_gate import GradientGate
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.settings import ResolvedSettings
from unziplora.training.weightings import min_snr, schedule_weights


@dataclass(frozen=True)
class LossWeights:
    """tables: each branch's weights (T,), or None where its loss is uniform. first: the step (from
    0) that is the first to be weighted."""

    tables: Mapping[BranchName, Tensor | None]
    first: float = 0

    @classmethod
    def of(
        cls, settings: ResolvedSettings, abar: Tensor, prediction_type: PredictionType
    ) -> LossWeights:
        """abar: (T,), the model's schedule. Raises InvalidInput for a weighting that it makes
        infinite."""
        by_branch = {"content": settings.weighting_content, "style": settings.weighting_style}
        tables: dict[BranchName, Tensor | None] = {}
        for branch in BRANCHES:
            name = by_branch[branch] or settings.weighting
            # on the CPU, where a number of it is read at each step without waiting for a GPU
            if settings.min_snr_gamma is not None:
                tables[branch] = min_snr(abar.cpu(), prediction_type, settings.min_snr_gamma)
            elif name != "uniform":
                tables[branch] = schedule_weights(name, abar.cpu(), prediction_type)
            else:
                tables[branch] = None
        return cls(tables, settings.weight_from * settings.steps)

    def at(
        self, step: int, t: int, branches: Mapping[BranchName, object]
    ) -> tuple[float, Mapping[BranchName, GradientGate]]:
        """At a step and a timestep: the factor of the loss, and where these branches' differ, 1 and
        a gate for each."""
        weights = {branch: self._weight(branch, step, t) for branch in branches}
        if len(set(weights.values())) == 1:
            return next(iter(weights.values())), {}
        return 1.0, {branch: GradientGate(weight) for branch, weight in weights.items()}

    def _weight(self, branch: BranchName, step: int, t: int) -> float:
        table = self.tables[branch]
        return 1.0 if table is None or step < self.first else float(table[t])
