"""What WebUIs remember of LoRA files, forgotten where a file is new, another one, or gone."""

from __future__ import annotations

import sys
from typing import Any

# of no image; a layer that has them restores its weights at its next call and applies LoRAs anew
_NEVER_WANTED = (("a file that changed", 0.0, 0.0, None),)


def refresh() -> None:
    """So that a new file works in a prompt at once and its card shows, and an old name draws what
    its file has now."""
    networks = sys.modules.get("networks")  # their Lora extension, unless it is disabled
    if networks is None:
        return
    networks.list_available_networks()
    # Forge keeps what it last read of a file by name (its sd_forge_lora/networks.py:56), and would
    # draw with an overwritten pair's old LoRAs
    forget = getattr(getattr(networks, "load_lora_state_dict", None), "cache_clear", None)
    if forget is not None:
        forget()
    data: Any = getattr(sys.modules.get("modules.sd_models"), "model_data", None)
    loaded: Any = getattr(data, "sd_model", None)
    # it applies no LoRA again that the last image had, by name and weight (its :113)
    if hasattr(loaded, "current_lora_hash"):
        loaded.current_lora_hash = ""
    _forget_merged(loaded)
    if hasattr(networks, "network_apply_weights"):
        _forget_files(networks)
        for model in {id(m): m for m in (loaded, *getattr(data, "loaded_sd_models", ()))}.values():
            _forget_applied(model)


def _forget_merged(model: Any) -> None:
    """Forge merges LoRAs into the weights anew where their files' names and weights are others
    (its backend/patcher/lora.py:355)."""
    parts = getattr(model, "forge_objects", None)
    for patcher in (
        getattr(parts, "unet", None),
        getattr(getattr(parts, "clip", None), "patcher", None),
    ):
        loader: Any = getattr(patcher, "lora_loader", None)
        if hasattr(loader, "loaded_hash"):
            loader.loaded_hash = "a file that changed"


def _forget_files(networks: Any) -> None:
    """Automatic1111 reads a file again where it is newer than what it has, which one that was
    renamed is not (extensions-builtin/Lora/networks.py:336). The other name is for an image that is
    being drawn: its layers would else note what they have of the old file under its name."""
    for file in (*networks.loaded_networks, *networks.networks_in_memory.values()):
        file.mtime = 0.0
        file.name = f"{file.name} (before)"


def _forget_applied(model: Any) -> None:
    """Its layers keep the weights of a LoRA while its name and weight stay the same (:422)."""
    for module in getattr(model, "modules", lambda: ())():
        if getattr(module, "network_current_names", ()) != ():
            module.network_current_names = _NEVER_WANTED
