"""UnZipLoRA: from one image, a content LoRA and a style LoRA for SDXL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unziplora.version import __version__

__all__ = ["__version__", "resume", "train"]

if TYPE_CHECKING:
    from unziplora.python_api import resume, train


def __getattr__(name: str) -> Any:
    """`train` and `resume`, imported on first use: a WebUI imports the package at its start."""
    if name in ("train", "resume"):
        from unziplora import python_api as api

        return getattr(api, name)
    raise AttributeError(f"module 'unziplora' has no attribute {name!r}")
