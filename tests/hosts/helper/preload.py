"""Tells open_clip of small text encoders, before the WebUI loads a checkpoint. Tests only."""

import os
from pathlib import Path


def preload(parser):
    try:
        import open_clip
    except ImportError:  # Forge Neo has none
        return
    for config in Path(os.environ["UNZIPLORA_TEST_CONFIGS"]).glob("*/open_clip"):
        open_clip.add_model_config(config)
