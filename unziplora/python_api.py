"""The Python interface: start a run on a host, or resume one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unziplora.host import Host
from unziplora.images.load import SourceImage, open_image
from unziplora.training.destination import check_destination
from unziplora.training.run import Run
from unziplora.training.settings import Settings


def train(
    image: str | Path | bytes | SourceImage,
    *,
    subject: str,
    style: str,
    host: Host,
    settings: Settings | Mapping[str, Any] | None = None,
    out: str | Path = ".",
    overwrite: bool = False,
) -> Run:
    """A run that trains a content and a style LoRA on one image; reading its events drives it.

    settings: a Settings object or some of its fields; `subject` and `style` win over it. The
    files go to `out` (made where only the folder itself is missing), the run's own folder to
    out/.unziplora/NAME. Raises InvalidInput before anything is written.
    """
    if isinstance(settings, Settings):
        chosen = replace(settings, subject=subject, style=style)
    else:
        chosen = Settings(**{**(settings or {}), "subject": subject, "style": style})
    check_destination(chosen, Path(out), overwrite=overwrite)
    source = image if isinstance(image, SourceImage) else open_image(image)
    return Run.start(source, host, chosen, Path(out), overwrite=overwrite)


def resume(folder: str | Path, *, host: Host) -> Run:
    """Continues the run in a folder (out/.unziplora/NAME, or out/NAME for short) exactly where its
    state was saved."""
    return Run.resume(Path(folder), host)
