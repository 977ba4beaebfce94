"""The user's presets: what stood in the fields of the Train tab, a JSON file each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from unziplora import files as atomic
from unziplora.app.own_files import is_own_file, is_own_folder
from unziplora.errors import InvalidInput, NotFound, WriteError
from unziplora.training.run_folder import HIDDEN

_FOLDER = ".presets"  # beside the runs, none of whose names begins with a dot
_MOST_BYTES = 100_000  # of a file


class PresetFiles:
    """out: gives the output folder, asked for each time, because it may be an option; runs: where
    runs go, where that is not in it (app/library.py)."""

    def __init__(
        self, out: Callable[[], Path], runs: Callable[[], Path | None] = lambda: None
    ) -> None:
        self._out, self._runs = out, runs

    def names(self) -> list[str]:
        """In alphabetical order."""
        found = {
            path.stem
            for folder in self._folders()
            for path in folder.glob("*.json")
            if self._is_own(path)
        }
        return sorted(found, key=str.lower)

    def read(self, name: str) -> dict[str, str]:
        """The fields by their settings' names; only texts. Raises NotFound, and
        InvalidInput for a damaged one."""
        path = self._path(name)
        try:
            if not self._is_own(path):  # a link, a FIFO
                raise FileNotFoundError
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("too large")
            data = json.loads(path.read_text("utf-8"))
            if not isinstance(data, dict):
                raise ValueError("no object")
        except OSError as error:
            raise NotFound(
                f"There is no preset named {name}. It may be deleted already."
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"The preset {name} is damaged. Delete it, and save it again."
            ) from error
        return {str(key): value for key, value in data.items() if isinstance(value, str)}

    def write(self, name: str, values: Mapping[str, str]) -> None:
        """Replaces one of the same name. Raises InvalidInput for a name that no file can have, and
        WriteError, also where the folder is reached by a link: what that leads to is not ours."""
        path = self._folders()[0] / _file_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"The folder for presets cannot be made ({error.strerror}). Allow writing to the "
                "output folder."
            ) from error
        if not any(is_own_folder(root, path.parent) for root in self._roots()):
            raise WriteError(
                f"The folder for presets {HIDDEN}/{_FOLDER} is a link, or lies in one. Links are "
                "not followed; put the folder itself there."
            )
        atomic.write_text(path, json.dumps(dict(values), indent=2, ensure_ascii=False) + "\n")

    def delete(self, name: str) -> None:
        """Raises NotFound where there is none (what a link leads to is none), and WriteError where
        the system refuses."""
        paths = [folder / _file_name(name) for folder in self._folders()]
        found = [path for path in paths if self._is_own(path)]
        if not found:
            raise NotFound(f"There is no preset named {name}. It may be deleted already.")
        try:
            for path in found:  # or one of an earlier version would be back
                path.unlink()
        except OSError as error:
            raise WriteError(
                f"The preset {name} could not be removed ({error.strerror}). Allow writing to the "
                "output folder."
            ) from error

    def _is_own(self, path: Path) -> bool:
        return any(is_own_file(root, path) for root in self._roots())

    def _roots(self) -> list[Path]:
        return [root for root in (self._out(), self._runs()) if root is not None]

    def _folders(self) -> list[Path]:
        """Where presets are written, and where else an earlier version wrote them."""
        runs, own = self._runs(), self._out() / HIDDEN / _FOLDER
        return [own] if runs is None else [runs / _FOLDER, own]

    def _path(self, name: str) -> Path:
        """Of the first that there is; where there is none, of the one to write."""
        paths = [folder / _file_name(name) for folder in self._folders()]
        return next((path for path in paths if path.exists()), paths[0])


def _file_name(name: str) -> str:
    return f"{atomic.check_name((name or '').strip())}.json"
