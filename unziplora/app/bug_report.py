"""What a bug report needs of a program and a run, without what says whose they are."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import torch

from unziplora.app.own_files import is_own_file
from unziplora.app.redact import redact
from unziplora.training.run_folder import RunFolder
from unziplora.training.settings import Settings
from unziplora.version import __version__

_PACKAGES = (
    "torch", "safetensors", "numpy", "pillow", "gradio", "fastapi", "starlette", "pydantic",
    "diffusers", "transformers", "peft", "xformers", "bitsandbytes",
)  # fmt: skip
_LOG_LINES = 80
_LOG_BYTES = 200_000  # that are read of it, from its end
_OF_LISTS = ("method", "preview_sampler")  # texts that a program offers, none of a user's own
# The user's own texts. Choices among few are Literals; a new text is kept out until it is here.
_WORDS = tuple(
    name
    for name, kind in get_type_hints(Settings).items()
    if kind in (str, str | None) and name not in _OF_LISTS
)


def report(
    program: Mapping[str, str],
    folder: RunFolder | None,
    messages: Iterable[str] = (),
    names: Iterable[str] = (),
) -> str:
    """Versions, machine, plan, settings and the end of the log, as text.

    program: what the program says of itself. folder: of the run in question. messages: sentences
    that the page showed. names: of other runs and pairs. Words, names and paths of the user are
    replaced.
    """
    facts = {**program, **_machine()}
    parts = ["\n".join(f"{what}: {value}" for what, value in facts.items())]
    private = list(names)
    if folder is not None:
        settings, words = _settings(folder)
        private += [folder.path.name, *words]
        parts += [settings, *messages, *_log_end(folder)]
    return redact("\n\n".join(part for part in parts if part), private) + "\n"


def _machine() -> dict[str, str]:
    found = {
        "unziplora": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        found["device"] = f"{device.name}, {device.total_memory / 1e9:.1f} GB"
    else:
        found["device"] = "mps" if torch.backends.mps.is_available() else "cpu"
    return found


def _settings(folder: RunFolder) -> tuple[str, list[str]]:
    """The run's settings with words of the user counted, not said; and those words."""
    try:
        info = folder.read_info()
        settings: dict[str, Any] = asdict(info.settings)
    except Exception as error:
        return f"settings: {type(error).__name__}: {error}", []
    words = [str(settings[field]) for field in _WORDS if settings.get(field)]
    words.append(Path(info.model.name).stem)
    lines = [
        f"  {name} of {len(value)} characters" if name in _WORDS else f"  {name}: {value}"
        for name, value in settings.items()
        if value not in (None, "")
    ]
    lines.insert(0, f"architecture: {info.architecture}, model family: {info.model.family}")
    return "\n".join([*lines[:1], "settings:", *lines[1:]]), words


def _log_end(folder: RunFolder) -> list[str]:
    if not is_own_file(folder.path, folder.log):  # a link to any file; a FIFO, which never ends
        return []
    try:
        with open(folder.log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return ["\n".join(["end of the log:", *lines[-_LOG_LINES:]])]
