"""The Python interface: start a run on a host, or resume one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unziplora.errors import InvalidInput
from unziplora.host import Host
from unziplora.images.load import SourceImage, open_image
from unziplora.lora.pair import Pair, find_pair
from unziplora.training.destination import check_destination
from unziplora.training.run import Run
from unziplora.training.settings import Settings
from unziplora.training.start_from import FinishedPair


def train(
    image: str | Path | bytes | SourceImage,
    *,
    subject: str,
    style: str,
    host: Host,
    settings: Settings | Mapping[str, Any] | None = None,
    out: str | Path = ".",
    overwrite: bool = False,
    start_from: str | None = None,
    runs: str | Path | None = None,
) -> Run:
    """A run that trains a content and a style LoRA on one image; reading its events drives it.

    settings: a Settings object or some of its fields; `subject` and `style` win over it. The
    files go to `out` (made where only the folder itself is missing), the run's own folder to
    out/.unziplora/NAME, or to runs/NAME where a program would take that for LoRAs. start_from: the
    name of a pair in `out` that is trained on, with a fresh optimizer. Raises InvalidInput before
    anything is written.
    """
    if isinstance(settings, Settings):
        chosen = replace(settings, subject=subject, style=style)
    else:
        chosen = Settings(**{**(settings or {}), "subject": subject, "style": style})
    kept = None if runs is None else Path(runs)
    check_destination(chosen, Path(out), overwrite=overwrite, runs=kept)
    source = image if isinstance(image, SourceImage) else open_image(image)
    first = None if start_from is None else FinishedPair.read(_pair(Path(out), start_from))
    return Run.start(
        source, host, chosen, Path(out), overwrite=overwrite, start_from=first, runs=kept
    )


def resume(folder: str | Path, *, host: Host, out: str | Path | None = None) -> Run:
    """Continues the run in a folder (out/.unziplora/NAME, or out/NAME for short) exactly where its
    state was saved. out: where its pair goes, for a run that was started with `runs`."""
    return Run.resume(Path(folder), host, None if out is None else Path(out))


def _pair(out: Path, name: str) -> Pair:
    pair = find_pair(out, name)
    if pair is None:
        raise InvalidInput(
            f"There is no pair named {name} in the output folder to start from. Check its name."
        )
    return pair
