"""NP-LoRA's projection (arXiv 2511.11051): a content that gives way where a style reads."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unziplora.lora.algorithms import LoraLayer


def projected(content: LoraLayer, style: LoraLayer, mu: float) -> LoraLayer:
    """The content's layer after the soft projection against the style's of the same module:

        A_c <- A_c - mu / (1 + mu) (A_c V_s) V_s^T

    V_s: (in, k), the right singular vectors of the style's change; here all k that it has, not the
    first ones only. So B_c A_c does 1 / (1 + mu) of what it did to inputs along them, and the same
    as before to inputs that the style does not read. mu = 0 changes nothing.
    """
    down = content.down.float()
    rows = down.flatten(1)
    directions = input_directions(style)
    rows = rows - mu / (1 + mu) * (rows @ directions) @ directions.T
    return replace(content, down=rows.reshape(down.shape))


def input_directions(layer: LoraLayer) -> Tensor:
    """(in, k), orthonormal: the right singular vectors of B A whose singular value is not zero. By
    a QR of A, so that nothing of the weight's size is computed."""
    basis, triangle = torch.linalg.qr(layer.down.float().flatten(1).T)
    core = layer.up.float().flatten(1) @ triangle.T
    _, values, rows = torch.linalg.svd(core, full_matrices=False)
    rounding = torch.finfo(values.dtype).eps * max(layer.up.shape[0], basis.shape[0])
    kept: Tensor = basis @ rows[values > rounding * values.max()].T
    return kept
