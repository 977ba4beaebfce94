"""What a pair is: NAME_content and NAME_style of one run, found in a folder by their headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from unziplora.lora.metadata import LoraInfo, read_info
from unziplora.method.prompts import BRANCHES, BranchName

_ENDINGS = (".safetensors", ".json", ".png", ".preview.png")  # a file's, and its side files'


@dataclass(frozen=True)
class Pair:
    """Two files of one run, and what their headers say; a value that is missing is empty."""

    name: str
    content: Path
    style: Path
    content_trigger: str
    style_trigger: str
    method: str
    steps: str
    model: str
    family: str = ""

    def as_json(self) -> dict[str, str]:
        """Base names instead of paths."""
        return {**asdict(self), "content": self.content.name, "style": self.style.name}

    @property
    def files(self) -> dict[BranchName, Path]:
        return {"content": self.content, "style": self.style}

    def all_files(self) -> list[Path]:
        """The two files and their side files, as far as they exist."""
        beside = (f.with_name(f.stem + end) for f in self.files.values() for end in _ENDINGS)
        return [path for path in beside if path.is_file()]


def pair_files(folder: Path, name: str) -> dict[BranchName, Path]:
    """Where a pair's two LoRAs go."""
    return {branch: folder / f"{name}_{branch}.safetensors" for branch in BRANCHES}


def find_pair(
    folder: Path, name: str, readable: Callable[[Path], bool] = Path.is_file
) -> Pair | None:
    """The pair of this name; None where there is none, or its two files are not of one run.
    readable: whether a file may be opened."""
    if not name or Path(name).name != name:
        return None
    files = pair_files(folder, name)
    if not all(readable(path) for path in files.values()):
        return None
    return _pair(name, files, {branch: read_info(path) for branch, path in files.items()})


def find_pairs(folder: Path, readable: Callable[[Path], bool] = Path.is_file) -> list[Pair]:
    """The pairs in a folder, the newest first. A file that cannot be read hides no other."""
    contents = {path: _changed(path) for path in folder.glob("*_content.safetensors")}
    names = (
        path.name.removesuffix("_content.safetensors")
        for path in sorted(contents, key=lambda path: -contents[path])
    )
    return [pair for name in names if (pair := find_pair(folder, name, readable)) is not None]


def _pair(
    name: str, files: Mapping[BranchName, Path], infos: Mapping[BranchName, LoraInfo]
) -> Pair | None:
    content, style = infos["content"], infos["style"]
    if content.pair is None or content.pair != style.pair:
        return None
    if content.trigger is None or style.trigger is None or content.method is None:
        return None
    return Pair(
        name,
        files["content"],
        files["style"],
        content.trigger,
        style.trigger,
        content.method,
        "" if content.steps is None else str(content.steps),
        content.model_name or "",
        content.family or "",
    )


def _changed(path: Path) -> float:
    """Seconds since 1970; 0 where the file is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
