"""What a user means by a path: the model itself, and the name that they see."""

from __future__ import annotations

import os
from pathlib import Path

from unziplora.errors import InvalidInput

_CACHED = "models--"  # of Hugging Face's cache: models--OWNER--NAME/snapshots/COMMIT


def model_path(path: str | Path) -> Path:
    """A folder of Hugging Face's cache is followed to its snapshot; other paths stay.

    Raises InvalidInput for such a folder without a snapshot.
    """
    path = Path(path).expanduser()
    folder = path.parent if path.name == "snapshots" else path
    if not (_absolute(folder).name.startswith(_CACHED) and folder.is_dir()):
        return path
    snapshots = [p for p in (folder / "snapshots").glob("*") if p.is_dir()]
    main = folder / "refs" / "main"
    named = main.read_text("utf-8", errors="replace").strip() if main.is_file() else ""
    chosen = [p for p in snapshots if p.name == named] or sorted(
        snapshots, key=lambda p: p.stat().st_mtime, reverse=True
    )
    if not chosen:
        raise InvalidInput(
            f"{path.name} is a folder of Hugging Face's cache without a downloaded model. "
            "Download the model, or choose another."
        )
    return chosen[0]


def model_name(path: Path) -> str:
    """The name that a user sees: of a link its own, not its target's, and of a snapshot in Hugging
    Face's cache the model's."""
    path = _absolute(path)
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith(_CACHED):
        return path.parent.parent.name.split("--")[-1]
    return path.name


def _absolute(path: Path) -> Path:
    """Without following links, as `Path.resolve` would."""
    return Path(os.path.abspath(path))
