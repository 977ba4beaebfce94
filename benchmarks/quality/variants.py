"""What `--part decide` compares with the defaults: settings of one run, all else as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unziplora.method.blocks import FULL

AS_CHOSEN = "as chosen"

# where the paper and its authors' code differ, or the paper says nothing (docs/defaults.md)
PAPER: Mapping[str, Mapping[str, Any]] = {
    "fold h": {"fold": "h"},
    "signed importance": {"importance": "signed"},
    "B random": {"init": "random"},
    "style prompt names the class": {"style_prompt": "class"},
    "window 1": {"window": 1},
    "mergers at the paper's rate": {"merger_lr": 5e-3},
    "mergers held at 1": {"merger_lr": 0.0},
    "mergers where columns overlap": {"merger_columns": "overlap"},
    "columns ranked again": {"reselect": True},
    "no orthogonality": {"orthogonality": 0.0},
    "a VAE sample per step": {"latent": "sample"},
    "SDXL's block table": {"blocks": dict(FULL["sdxl"])},
    "both in style's last group": {
        "blocks": {"content": ["output_blocks.3.1"], "style": ["output_blocks.4.1"]},
    },
    "both in style's first group": {
        "blocks": {"content": ["output_blocks.3.1"], "style": ["output_blocks.5.1"]},
    },
    "content in one more group": {
        "blocks": {
            "content": ["output_blocks.3.1", "output_blocks.4.1"],
            "style": ["output_blocks.5.1"],
        },
    },
}
# what the paper does not have (docs/beyond.md)
BEYOND: Mapping[str, Mapping[str, Any]] = {
    "min-SNR 5": {"min_snr_gamma": 5.0},
    "debiased": {"weighting": "debiased"},
    "x0": {"weighting": "x0"},
    "x0 from a third on": {"weighting": "x0", "weight_from": 1 / 3},
    "style-friendly": {"weighting": "style-friendly"},
    "style-friendly for style": {"weighting_style": "style-friendly"},
    "x0 for content": {"weighting_content": "x0"},
    "stratified timesteps": {"timesteps": "stratified"},
    "LoRA+ 4": {"lora_plus": 4.0},
    "mean of the last 50 steps": {"average_last": 50},
    "content from the subject, 0.2 of the rest": {"mask_content": "subject"},
    "and style from the rest, 0.2 of the subject": {"mask_content": "apart"},
    "content from the subject alone": {"mask_content": "subject", "mask_rest": 0.0},
    "and style from the rest alone": {"mask_content": "apart", "mask_rest": 0.0},
    "T-LoRA's rank mask": {"rank_mask": 1.0},
    "leak penalty 1": {"leak_penalty": 1.0},
    "twice the rank where content is": {"rank_by_group": {"output_blocks.3.1": 32}},
}
# what is computed otherwise, to take less memory (docs/performance.md)
PLANS: Mapping[str, Mapping[str, Any]] = {
    "plan low": {"memory": "low"},
    "plan lowest": {"memory": "lowest"},
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {AS_CHOSEN: {}, **PAPER, **BEYOND, **PLANS}
