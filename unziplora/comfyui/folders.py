"""Where ComfyUI looks for LoRAs, and where it looks for nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

from unziplora.training.run_folder import HIDDEN


def loras() -> Path:
    """Where pairs go: the first folder in which ComfyUI looks for LoRAs."""
    return Path(importlib.import_module("folder_paths").get_folder_paths("loras")[0])


def lora_folders() -> list[Path]:
    """All of them."""
    return [Path(one) for one in importlib.import_module("folder_paths").get_folder_paths("loras")]


def runs() -> Path:
    """Where runs' folders go. Not below a folder of LoRAs: ComfyUI lists every .safetensors file
    there, also in hidden folders (folder_paths.py:386)."""
    return Path(importlib.import_module("folder_paths").models_dir) / HIDDEN
