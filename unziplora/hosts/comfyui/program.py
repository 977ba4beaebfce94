"""ComfyUI's own modules, and what training asks of its memory management."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from unziplora.errors import InvalidInput, UnZipLoRAError

_ALL_OF_IT = 1e20  # bytes: more than any device has, so that nothing else stays on it
_FP8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


def comfy(name: str) -> Any:
    """A module of ComfyUI: comfy.NAME."""
    return importlib.import_module(f"comfy.{name}")


def load_whole(patcher: Any) -> None:
    """All weights on the device and nothing else there, also under --lowvram.

    Raises UnZipLoRAError where ComfyUI keeps weights elsewhere all the same.
    """
    with torch.inference_mode():  # as ComfyUI itself moves them
        comfy("model_management").load_models_gpu(
            [patcher], memory_required=_ALL_OF_IT, force_full_load=True
        )
    unet = patcher.model.diffusion_model
    where = [parameter.device.type for parameter in unet.parameters()]
    away = sum(kind != torch.device(patcher.load_device).type for kind in where)
    away += sum(bool(getattr(module, "weight_function", ())) for module in unet.modules())
    if away:
        raise UnZipLoRAError(
            f"ComfyUI keeps {away} of the {len(where)} weights of the model off the GPU, and "
            "training needs all of them there. Start ComfyUI without --novram, or free GPU memory."
        )


def refuse_fp8(unet: nn.Module) -> None:
    """Raises InvalidInput: ComfyUI computes with fp8 weights in ways that have no gradient."""
    for parameter in unet.parameters():
        dtype = str(parameter.dtype).removeprefix("torch.")
        if dtype in _FP8:
            raise InvalidInput(
                f"This model is loaded with fp8 weights ({dtype}), which cannot be trained on in "
                'ComfyUI. Load it with the weight dtype "default", from a file in fp16 or bf16.'
            )
