"""Weights of the loss by timestep, beyond the paper, whose loss is uniform.

Each function in WEIGHTINGS takes the schedule's abar (T,) and gives the weight (T,) of the squared
error of the noise; `schedule_weights` turns it into that of what the model predicts, and scales it
to a mean of 1, so that a learning rate means the same with each. With SNR = abar / (1 - abar):

    uniform         1, of whatever the model predicts (the paper)
    debiased        1 / sqrt(SNR)                          Yu et al. 2023, arXiv 2310.08442
    x0              1 / SNR: the error of the clean image   ConsisLoRA, arXiv 2503.10614
    style-friendly  log SNR as if drawn from N(-6, 2^2)     arXiv 2411.14793

The squared error of a velocity is (SNR + 1) / SNR times that of the noise. Which of them a branch
has, and from which step on: training/loss_weights.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import PredictionType

STYLE_FRIENDLY = (-6.0, 2.0)  # mean and deviation of the log SNR


def uniform(abar: Tensor) -> Tensor:
    return torch.ones_like(abar)


def debiased(abar: Tensor) -> Tensor:
    return _snr(abar).rsqrt()


def x0(abar: Tensor) -> Tensor:
    return 1 / _snr(abar)


def style_friendly(abar: Tensor) -> Tensor:
    """The density of the log SNR, times how much of it a timestep covers."""
    mean, deviation = STYLE_FRIENDLY
    log_snr = _snr(abar).clamp(min=1e-8).log()
    (covered,) = torch.gradient(log_snr)
    return torch.exp(-(((log_snr - mean) / deviation) ** 2) / 2) * covered.abs()


WEIGHTINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "uniform": uniform,
    "debiased": debiased,
    "x0": x0,
    "style-friendly": style_friendly,
}
_OF_ANY_PREDICTION = ("uniform", "style-friendly")  # they say how often a timestep is drawn


def schedule_weights(name: str, abar: Tensor, prediction_type: PredictionType) -> Tensor:
    """The weight (T,) of each timestep's squared error, with a mean of 1.

    Raises InvalidInput for a weighting that a zero at the schedule's end makes infinite.
    """
    weights = WEIGHTINGS[name](abar.double())
    if prediction_type == "v_prediction" and name not in _OF_ANY_PREDICTION:
        weights = weights * abar.double()  # SNR / (SNR + 1), which is abar
        weights = torch.where(abar == 0, _LIMITS.get(name, 0.0), weights)
    if not weights.isfinite().all():
        raise InvalidInput(
            f"The weighting {name} has no end on a model with zero terminal SNR that predicts "
            "noise. Choose uniform."
        )
    return (weights / weights.mean()).to(abar.dtype)


def min_snr(abar: Tensor, prediction_type: PredictionType, gamma: float) -> Tensor:
    """Hang et al. 2023, (T,), not scaled: min(SNR, gamma)/SNR for the noise, /(SNR + 1) for a
    velocity."""
    snr = _snr(abar)
    if prediction_type == "epsilon":
        return torch.where(snr > 0, snr.clamp(max=gamma) / snr, 1.0)
    return snr.clamp(max=gamma) / (snr + 1)


_LIMITS = {"x0": 1.0}  # of a velocity's weight where SNR is 0


def _snr(abar: Tensor) -> Tensor:
    return abar / (1 - abar)
