"""What lies in the output folder: pairs and runs. What is made of them: app/products.py.

Nothing here follows a link below the output folder: what one leads to is not ours to show, copy or
delete. Nothing here knows the queue; `busy` says which runs it holds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unziplora.app.own_files import is_own_file, is_own_folder
from unziplora.errors import InvalidInput, NotFound, WriteError
from unziplora.lora.inspect import Report, inspect
from unziplora.lora.listed import check_not_listed, listed_elsewhere
from unziplora.lora.pair import Pair, find_pair, find_pairs, pair_files
from unziplora.training.run_folder import RunFolder, RunInfo, list_runs, run_path

PUBLISHED = "unziplora-published"  # beside the output folder, where no program looks for LoRAs
_ROLES = ("content", "style")


@dataclass(frozen=True)
class StoredRun:
    """A run on disk that is not in the queue. has_state: whether it can be resumed; otherwise it
    can only be started again or deleted. step: of the state, or None where that cannot be read."""

    name: str
    has_state: bool
    step: int | None
    image: Path | None


class Library:
    """folder: where pairs go, asked for each time, because it may be an option. runs_at: where runs
    go, where a program would take them for LoRAs in `folder`. publish_to: where folders to publish
    go. saved: hears of files that were made, and of none where some were removed, so that a WebUI
    can refresh its list. busy: names of the runs in the queue."""

    def __init__(
        self,
        folder: Callable[[], Path],
        publish_to: Callable[[], Path] | None = None,
        saved: Callable[[Mapping[str, Path]], None] = lambda files: None,
        busy: Callable[[], Collection[str]] = frozenset,
        runs_at: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.folder, self.saved, self.runs_at = folder, saved, runs_at
        self._publish_to, self._busy = publish_to, busy
        # below which a WebUI looks for LoRAs by their names alone
        self.listed: Callable[[], Path | None] = lambda: None

    def out(self) -> Path:
        """The output folder, made where it is missing. Raises InvalidInput."""
        out = self.folder()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"The output folder cannot be made ({error.strerror}). Choose another in the "
                "settings."
            ) from error
        return out

    def pairs(self) -> list[Pair]:
        """The pairs in the output folder, the newest first."""
        return find_pairs(self.folder(), self.is_own)

    def pair(self, name: str) -> Pair:
        """Raises NotFound where there is none of this name."""
        pair = find_pair(self.folder(), name, self.is_own)
        if pair is None:
            raise NotFound(
                f"There is no pair named {short(name)} in the output folder. Choose one of the "
                "list."
            )
        return pair

    def lora(self, name: str) -> Path:
        """A LoRA file of the output folder by its base name. Raises NotFound."""
        path = self.folder() / name
        is_name = Path(name).name == name and name.endswith(".safetensors")
        if not is_name or not self.is_own(path):
            raise NotFound(f"There is no file {short(name)} in the output folder. Check the name.")
        return path

    def delete(self, name: str) -> list[str]:
        """Removes a pair: its two files and what lies beside them under their names; the run's
        folder stays. Gives the names of what was removed. Raises NotFound and WriteError."""
        removed = []
        for path in self._files_of(name):
            with removing(path.name):
                path.unlink(missing_ok=True)
            removed.append(path.name)
        self.saved({})
        return removed

    def files_of(self, name: str) -> list[str]:
        """Names of what `delete` would remove. Raises NotFound."""
        return [path.name for path in self._files_of(name)]

    def file(self, name: str, role: str) -> Path:
        """A file of a pair. Raises NotFound."""
        if role not in _ROLES:
            raise NotFound("A pair has a content and a style file. Ask for one of the two.")
        pair = self.pair(name)
        return pair.content if role == "content" else pair.style

    def inspect(self, name: str) -> Report:
        """What a LoRA of the output folder is, by its base name. Raises NotFound, InvalidInput."""
        return inspect(self.lora(name))

    def publish_folder(self) -> Path:
        """Where folders to publish go: never below the output folder, where a WebUI would take the
        copies in them for LoRAs of its own."""
        if self._publish_to is not None:
            return self._publish_to()
        return self.folder().absolute().parent / PUBLISHED

    def preview_steps(self, name: str) -> dict[int, dict[str, Path]]:
        """The steps of a run at which previews were drawn, in order: their images by what they
        show. Raises InvalidInput."""
        found: dict[int, dict[str, Path]] = {}
        for path in sorted(self.run_folder(name).previews.glob("*_*.png")):
            step, _, what = path.stem.partition("_")
            if step.isdecimal() and self.is_own(path):
                found.setdefault(int(step), {})[what] = path
        return found

    def runs(self) -> list[StoredRun]:
        """Runs on disk that have not ended well and are not in the queue, by name: also those that
        were killed before their first state."""
        busy = self._busy()
        found = []
        for run in list_runs(self.folder(), self.runs_at()):
            if run.name in busy or not self._is_own_folder(run.path):
                continue
            if run.has_state or not self._has_pair(run.name):
                image = run.image if self.is_own(run.image) else None
                found.append(StoredRun(run.name, run.has_state, run.saved_step(), image))
        return found

    def past_runs(self) -> list[str]:
        """Names of the runs on disk whose progress is known."""
        return [
            run.name
            for run in list_runs(self.folder(), self.runs_at())
            if self._is_own_folder(run.path) and self.is_own(run.progress)
        ]

    def past_run(self, name: str) -> tuple[RunInfo, list[dict[str, float]]]:
        """A run's settings and the rows of its progress.csv. Raises InvalidInput."""
        run = self.run_folder(name)
        return run.read_info(), run.read_progress() if self.is_own(run.progress) else []

    def resumable(self) -> list[str]:
        """Names of the runs on disk that have a state and are not in the queue."""
        return [run.name for run in self.runs() if run.has_state]

    def run_folder(self, name: str) -> RunFolder:
        """Raises InvalidInput for a name that would leave the output folder, and for a folder that
        is a link or has links in it."""
        if not name or Path(name).name != name or name in (".", ".."):
            raise InvalidInput(
                "A run's name is that of its folder, without any path. Leave that out."
            )
        run = RunFolder(self.run_path(name), self.folder())
        for path in (run.path, run.previews, run.snapshots):
            if os.path.lexists(path) and not self._is_own_folder(path):
                raise InvalidInput(
                    f"The folder of the run {short(name)} is a link, or has one in it. Links are "
                    "not followed; put the folder itself there."
                )
        return run

    def delete_run(self, name: str) -> None:
        """Removes what a run that has ended left in its folder; files of others stay there. Raises
        NotFound where there is no such run, and InvalidInput where it has not ended."""
        if name in self._busy():
            raise InvalidInput(f"The run {short(name)} has not ended. Stop it first.")
        folder = self.run_folder(name)
        if not folder.exists():
            raise NotFound(f"There is no run named {short(name)}. It may be deleted already.")
        with folder.locked(), removing(name):
            folder.clear()

    def free_name(self, words: str) -> str:
        """The words, or words-2, words-3, ..."""
        folder, busy, elsewhere = self.folder(), self._busy(), self._elsewhere()

        def taken(name: str) -> bool:
            files = pair_files(folder, name).values()
            there = any(os.path.lexists(path) for path in (self.run_path(name), *files))
            return name in busy or there or any(path.stem in elsewhere for path in files)

        numbered = (f"{words}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([words], numbered) if not taken(name))

    def check_not_listed(self, *paths: Path) -> None:
        """Raises InvalidInput where the program's prompts would find another file than these."""
        check_not_listed([path.stem for path in paths], self._elsewhere())

    def _elsewhere(self) -> dict[str, Path]:
        top = self.listed()
        return {} if top is None else listed_elsewhere(top, self.folder())

    def run_path(self, name: str) -> Path:
        """Where the run of this name is, or would be."""
        return run_path(self.folder(), name, self.runs_at())

    def is_own(self, path: Path) -> bool:
        """Whether a file lies in the folder of pairs or of runs, on a way without links."""
        return any(is_own_file(root, path) for root in self._roots())

    def _files_of(self, name: str) -> list[Path]:
        return [path for path in self.pair(name).all_files() if self.is_own(path)]

    def _is_own_folder(self, path: Path) -> bool:
        return any(is_own_folder(root, path) for root in self._roots())

    def _roots(self) -> list[Path]:
        runs = self.runs_at()
        return [self.folder()] if runs is None else [self.folder(), runs]

    def _has_pair(self, name: str) -> bool:
        return all(path.is_file() for path in pair_files(self.folder(), name).values())


@contextlib.contextmanager
def removing(name: str) -> Iterator[None]:
    """Raises WriteError where the system refuses to remove something."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{name} could not be removed ({error.strerror}). Close the programs that have it "
            "open, and allow writing to its folder."
        ) from error


def short(name: str) -> str:
    """In quotes, on one line and short: it may be anything that was sent."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:100])
    return f"'{shown}'"
