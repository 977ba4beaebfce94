"""A LoRA on a model of ComfyUI, all of it or not at all."""

from __future__ import annotations

from typing import Any

from unziplora.comfyui.loras import LoraTensors
from unziplora.errors import InvalidInput
from unziplora.hosts.comfyui.program import comfy


def apply(model: Any, lora: LoraTensors, strength: float) -> Any:
    """A patcher with the LoRA on it; the same one for strength 0.

    ComfyUI leaves out what does not fit and says so in its console only, where the image is then
    silently another one: here, raises InvalidInput.
    """
    if strength == 0:
        return model
    keys = comfy("lora").model_lora_keys_unet(model.model, {})
    patches = comfy("lora").load_lora(dict(lora), keys)
    modules = {name.partition(".")[0] for name in lora}
    shapes = {name: tensor.shape for name, tensor in model.model.state_dict().items()}
    fitting = sum(_fits(lora, module, shapes.get(keys.get(module))) for module in modules)
    if fitting < len(modules):
        raise InvalidInput(
            f"{len(modules) - fitting} of the {len(modules)} layers of {lora.name} do not fit this "
            "model. Connect the model that it was trained on, or one of its architecture."
        )
    patched = model.clone()
    patched.add_patches(patches, strength)
    return patched


def _fits(lora: LoraTensors, module: str, shape: Any) -> bool:
    down, up = (lora.get(f"{module}.lora_{part}.weight") for part in ("down", "up"))
    if down is None or up is None or shape is None:
        return False
    return (up.shape[0], *down.shape[1:]) == tuple(shape)
