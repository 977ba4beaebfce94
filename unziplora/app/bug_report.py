"""What a bug report needs of a program and a run, with nothing in it that says whose they are."""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unziplora.training.run_folder import RunFolder
from unziplora.version import __version__

_PACKAGES = (
    "torch", "safetensors", "numpy", "pillow", "gradio", "fastapi", "starlette", "pydantic",
    "diffusers", "transformers", "peft", "xformers", "bitsandbytes",
)  # fmt: skip
_LOG_LINES = 80
_WORDS = ("subject", "style", "token", "name", "prompt_combined", "prompt_content",
          "prompt_style", "preview_negative")  # fmt: skip
# Of a path to code, what comes after one of these is the same everywhere, and says where it failed.
_CODE = re.compile(
    r".*[/\\](?=(?:site-packages|dist-packages|unziplora|modules|modules_forge|backend|"
    r"repositories|extensions|extensions-builtin|lib[/\\]python[0-9.]+)[/\\][^\n]*\.py$)"
)
_PATHS = (
    re.compile(r"(?P<quote>[\"'])(?P<path>(?:[A-Za-z]:[\\/]|[\\/]|~[\\/])[^\n]*?)(?P=quote)"),
    re.compile(r"(?P<path>(?<![\w/])(?:file://|~)?/[^\s\"'<>|:,;()\[\]{}]+)"),
    re.compile(r"(?P<path>(?:\b[A-Za-z]:[\\/]|\\\\)[^\s\"'<>|*?,;()\[\]{}]+)"),
)
_SECRETS = (
    re.compile(r"\b(?:hf|sk|pk|ghp|gho|glpat|xox[bp])[_-][\w-]{12,}"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w+/=.-]{8,}"),
    re.compile(r"(?i)\b(?:api[_-]?key|token|secret|password|passwd|authorization)\b\s*[=:]\s*\S+"),
    re.compile(r"(?<=://)[^\s/@]+@"),
    re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
)


def report(program: Mapping[str, str], folder: RunFolder | None, told: Iterable[str] = ()) -> str:
    """Versions, machine, plan, settings and the end of the log, as text.

    program: what the program says of itself. folder: of the run in question. told: sentences that
    the page showed. Words, names and paths of the user are replaced.
    """
    parts = ["\n".join(f"{what}: {said}" for what, said in {**program, **_machine()}.items())]
    names: list[str] = []
    if folder is not None:
        settings, words = _settings(folder)
        names = [folder.path.name, *words]
        parts += [settings, *told, *_log_end(folder)]
    return clean("\n\n".join(part for part in parts if part), names) + "\n"


def clean(text: str, names: Iterable[str] = ()) -> str:
    """Without paths, the given names, and those of the user, the host and their keys."""
    own = [str(Path.home()), tempfile.gettempdir(), str(Path.cwd())]
    for path in sorted({p for p in own if len(p) > 3}, key=len, reverse=True):
        text = text.replace(path, "/…")
    for pattern in _SECRETS:
        text = pattern.sub("<removed>", text)
    for pattern in _PATHS:
        text = pattern.sub(_shortened, text)
    for name in sorted({*names, *_whose()}, key=len, reverse=True):
        if len(name) > 1:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text, flags=re.IGNORECASE)
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _shortened(found: re.Match[str]) -> str:
    quote = found.groupdict().get("quote") or ""
    path = found["path"]
    code = _CODE.sub("", path)
    return f"{quote}{code if code != path else '<path>'}{quote}"


def _whose() -> list[str]:
    names = [socket.gethostname(), platform.node(), Path.home().name]
    with contextlib.suppress(Exception):  # no such user in this container
        names.append(getpass.getuser())
    return [name for name in names if name.lower() not in ("root", "user", "home", "localhost")]


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
        settings: dict[str, Any] = json.loads(info.settings.as_json())
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
    try:
        lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return ["\n".join(["end of the log:", *lines[-_LOG_LINES:]])]
