"""What a model's maker says of it in its file's header, for any host."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from unziplora.host import Defaults
from unziplora.unet.architectures import MINIATURE, family

SDXL_WIDTH = 320  # channels of the first level of every published member of the family
SDXL_RESOLUTION = 1024
# a safetensors header's key, or with _ before it one of a diffusers folder's index
DEFAULTS = "unziplora.defaults"

_FIRST_MINIATURE = "UnZipLoRA miniature"  # its title; it was made before headers named it
_FAMILIES = {"pony": "Pony", "noob": "NoobAI", "illustrious": "Illustrious"}


def defaults_in(metadata: Mapping[str, str], width: int) -> Defaults:
    """width: channels of the UNet's first level; SDXL's own means 1024 px whatever is said."""
    resolution = SDXL_RESOLUTION if width == SDXL_WIDTH else _resolution(metadata)
    defaults = defaults_of(resolution, metadata.get(DEFAULTS, "{}"))
    if metadata.get("modelspec.title") == _FIRST_MINIATURE:
        return replace(defaults, architecture=MINIATURE)
    return defaults


def defaults_of(resolution: int, stated: str) -> Defaults:
    """With what a model's maker says (JSON with steps, rank, lr, architecture, guidance), so far
    as it is sensible."""
    try:
        values = json.loads(stated)
        steps, rank, lr = (values.get(key) for key in ("steps", "rank", "lr"))
        architecture, guidance = values.get("architecture"), values.get("guidance")
        return Defaults(
            resolution,
            int(steps) if steps and 1 <= int(steps) <= 100_000 else None,
            int(rank) if rank and 1 <= int(rank) <= 1024 else None,
            float(lr) if lr and 0 < float(lr) <= 1 else None,
            architecture if architecture in family() else None,
            float(guidance) if guidance and 0 < float(guidance) <= 100 else None,
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Defaults(resolution)


def family_in(name: str) -> str | None:
    """What a hub calls a model's base, where its name tells."""
    for word, called in _FAMILIES.items():
        if word in name.lower():
            return called
    return None


def _resolution(metadata: Mapping[str, str]) -> int:
    match = re.match(r"\d+", metadata.get("modelspec.resolution", ""))
    side = int(match[0]) if match else SDXL_RESOLUTION
    return side if 64 <= side <= 4096 else SDXL_RESOLUTION
