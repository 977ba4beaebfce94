"""The noise schedule that ComfyUI draws with, as training needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import PredictionType
from unziplora.hosts.comfyui.program import comfy


def prediction_type(sampling: Any, name: str) -> PredictionType:
    """What a model predicts by its `model_sampling`. Raises InvalidInput for all but epsilon and v
    on discrete timesteps. name: of the model."""
    known = comfy("model_sampling")
    discrete = known.ModelSamplingDiscrete
    # a subclass may keep the name and change what it means (LCM in nodes_model_advanced.py)
    plain = isinstance(sampling, discrete) and type(sampling).timestep is discrete.timestep
    kinds: dict[Any, PredictionType] = {
        known.EPS.calculate_denoised: "epsilon",
        known.V_PREDICTION.calculate_denoised: "v_prediction",
    }
    kind = kinds.get(type(sampling).calculate_denoised)
    if not plain or kind is None:
        bases = ", ".join(base.__name__ for base in type(sampling).__bases__)
        raise InvalidInput(
            f"The model {name} is sampled by {bases}, which cannot be trained here. Choose an SDXL "
            "checkpoint that predicts epsilon or v, without a node that changes its sampling "
            "(such as LCM or EDM)."
        )
    return kind


def alphas_cumprod(sampling: Any, device: torch.device) -> Tensor:
    """(T,), fp32, of the sigmas that images are drawn with: abar = 1 / (1 + sigma^2)."""
    sigmas: Tensor = sampling.sigmas.detach().to("cpu", torch.float64)
    return (1 / (1 + sigmas**2)).to(torch.float32).to(device)
