"""UnZipLoRA in ComfyUI: what ComfyUI loads. The nodes are in unziplora/comfyui."""

import importlib

from .engine import find

find()
try:
    importlib.import_module("comfy_api.latest")
except ImportError as error:
    raise ImportError(
        "UnZipLoRA's nodes need a newer ComfyUI, with comfy_api.latest. Update ComfyUI."
    ) from error
nodes = importlib.import_module("unziplora.comfyui.nodes")

NODE_CLASS_MAPPINGS = nodes.NODE_CLASS_MAPPINGS
NODE_DISPLAY_NAME_MAPPINGS = nodes.NODE_DISPLAY_NAME_MAPPINGS
comfy_entrypoint = nodes.comfy_entrypoint

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "comfy_entrypoint"]
