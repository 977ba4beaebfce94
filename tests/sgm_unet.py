"""The real sgm UNet, on which Automatic1111 runs and trains, for tests.

The PyPI package auto1111sdk carries sgm unmodified. Its own __init__ wants half a WebUI, so the
modules are imported below bare namespaces in its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn


def _sgm_folder() -> Path | None:
    spec = importlib.util.find_spec("auto1111sdk")  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "modules" / "generative" / "sgm"


def sgm_unet_class() -> Any:
    """sgm's UNetModel; skips the test where auto1111sdk or what it imports is not installed."""
    folder = _sgm_folder()
    if folder is None:
        pytest.skip("the real sgm UNet needs: pip install --no-deps auto1111sdk==0.0.95")
    for package in ("einops", "omegaconf", "scipy", "packaging", "fsspec"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the real sgm UNet needs {package}")
    for name in ("sgm", "sgm.modules", "sgm.modules.diffusionmodules"):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = module
    return importlib.import_module("sgm.modules.diffusionmodules.openaimodel").UNetModel


def make_sgm_unet(
    widths: tuple[int, int, int] = (32, 64, 128),
    *,
    depths: tuple[int, int, int] = (1, 2, 10),
    context: int = 64,
    vector: int = 32 + 6 * 256,
    use_checkpoint: bool = False,
    seed: int | None = 0,
) -> nn.Module:
    """sgm's UNet as in the WebUI's sd_xl_base.yaml, at these widths; SDXL's 560 layers by default.

    depths: of the transformers by level (the first has none); seed: fills all tensors with small
    random numbers, also those that sgm sets to zero; None leaves sgm's own initialisation.
    """
    unet: nn.Module = sgm_unet_class()(
        in_channels=4,
        model_channels=widths[0],
        out_channels=4,
        num_res_blocks=2,
        attention_resolutions=[4, 2],
        channel_mult=[width // widths[0] for width in widths],
        num_head_channels=64,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        spatial_transformer_attn_type="softmax",
        transformer_depth=list(depths),
        context_dim=context,
        num_classes="sequential",
        adm_in_channels=vector,
        legacy=False,
        use_checkpoint=use_checkpoint,
    )
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in unet.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 1:  # norms around 1 (sgm's own start), biases around 0
                    parameter += 0.02 * noise
                else:
                    parameter.copy_(0.7 * noise / parameter[0].numel() ** 0.5)
    return unet.eval()
