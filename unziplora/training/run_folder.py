"""A run's folder: its settings, its state, and the lock that keeps it to one process.

    settings.json   the run's settings, and which model it trains on
    state.safetensors   everything that decides the next step (training/trainer.py)
    image.png, mask.png, progress.csv, log.txt, previews/, snapshots/

It lies in OUT/.unziplora/NAME, where no WebUI looks for LoRAs; earlier versions had it in
OUT/NAME, and with the image copy as picture.png: both are still read.

No path of the user is in it, but in log.txt, where the trace of an error names files. Nothing in
it is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from unziplora import files
from unziplora.errors import InvalidInput, WriteError
from unziplora.host import ModelIdentity
from unziplora.images.load import SourceImage, with_mask
from unziplora.safetensors_file import write_tensors
from unziplora.training.settings import ResolvedSettings, Settings
from unziplora.training.trainer import Trainer

VERSION = 1
LOCK = "run.lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # by another process
HIDDEN = ".unziplora"  # in the output folder, or where a program looks for no LoRAs
_ROW = re.compile(r"([0-9]{1,9}),[^\n]*\n")


@dataclass(frozen=True)
class StartedFrom:
    """The pair whose files a run began with. steps: that were in it already, as far as its files
    say."""

    name: str
    pair: str
    steps: int | None = None


@dataclass(frozen=True)
class RunInfo:
    """settings.json. started: seconds since 1970. pair: links the two files of a pair. replaces:
    the run may replace a pair of its name that is another's."""

    settings: ResolvedSettings
    model: ModelIdentity
    architecture: str
    pair: str
    started: float
    replaces: bool = False
    started_from: StartedFrom | None = None


class RunFolder:
    """One run on disk. `path` is its folder; `out` the output folder, where its pair goes: that
    which the run's folder lies in, where no other is named."""

    def __init__(self, path: Path, out: Path | None = None) -> None:
        self.path = path
        own = path.parent.parent if path.parent.name == HIDDEN else path.parent
        self.out = own if out is None else out
        self.state = path / "state.safetensors"
        self.progress = path / "progress.csv"
        self.previews = path / "previews"
        self.snapshots = path / "snapshots"
        self.log = path / "log.txt"
        self._settings = path / "settings.json"
        self._image = path / "image.png"
        self._older_image = path / "picture.png"
        self.mask = path / "mask.png"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def image(self) -> Path:
        """The copy of the image trained on."""
        older = self._older_image.is_file() and not self._image.is_file()
        return self._older_image if older else self._image

    def training_image(self) -> bytes:
        """An image file to begin such a run with again: the copy, with the subject's mask as its
        transparency. Raises InvalidInput."""
        for path in (self.image, self.mask):
            files.check_regular_file(path)
        image = self.image.read_bytes()
        return with_mask(image, self.mask.read_bytes()) if self.mask.is_file() else image

    @property
    def has_state(self) -> bool:
        """Whether there is a state to resume from."""
        return os.path.isfile(self.state)

    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        # os.path's, to which a name that no file can have is one that does not exist
        return os.path.exists(self._settings) or os.path.exists(self.state)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Keeps the folder to this process; the lock ends with it, even if it is killed. False
        where the disk has no locks, as some network disks: then nothing keeps others out.

        Raises InvalidInput where another holds it, and WriteError where it cannot be made.
        """
        try:
            opened = open(self.path / LOCK, "a+b")  # noqa: SIM115
        except OSError as error:
            raise WriteError(
                f"Nothing can be written to the run's folder {self.path.name} ({error.strerror}). "
                "Allow writing there, or make room on its disk."
            ) from error
        with opened as file:
            try:
                _lock(file)
            except OSError as error:
                if error.errno in _HELD:
                    raise InvalidInput(
                        f"A run named {self.path.name} is already running. "
                        "Wait for it to end, stop it, or choose another name."
                    ) from error
                yield False
                return
            yield True

    def clear_leftovers(self) -> None:
        """Removes temporary files of a process that was killed; for who holds the lock."""
        for folder in (self.path, self.previews, self.snapshots):
            files.clear_leftovers(folder)

    def begin(self, info: RunInfo, source: SourceImage) -> None:
        """Writes what a new run begins with, and only then removes what an earlier one left.

        Raises WriteError; the earlier run can then still be resumed.
        """
        with files.writing(self._image) as temporary:
            source.image.save(temporary, "PNG")
        if source.mask is not None:
            with files.writing(self.mask) as temporary:
                source.mask.save(temporary, "PNG")
        self.write_info(info)
        if source.mask is None:
            self.mask.unlink(missing_ok=True)
        self._older_image.unlink(missing_ok=True)
        self._clear_work()

    def clear(self) -> None:
        """Removes what a run left: only files of kinds that a run writes. Raises OSError."""
        self._clear_work()
        for old in (self._settings, self._image, self._older_image, self.mask):
            old.unlink(missing_ok=True)

    def _clear_work(self) -> None:
        for old in (self.state, self.progress, self.log):
            old.unlink(missing_ok=True)
        for folder, kind in ((self.previews, "*.png"), (self.snapshots, "*.safetensors")):
            for old in folder.glob(kind):
                old.unlink()

    def make(self) -> None:
        """Makes the folder, and those that it lies in. Raises WriteError."""
        files.make_folder(self.out)
        if self.path.parent != self.out:
            files.make_folder(self.path.parent)
        files.make_folder(self.path)

    def write_info(self, info: RunInfo) -> None:
        """Raises WriteError."""
        data = {
            "version": VERSION,
            "model": asdict(info.model),
            "architecture": info.architecture,
            "pair": info.pair,
            "started": info.started,
            "replaces": info.replaces,
            "started_from": asdict(info.started_from) if info.started_from else None,
            "settings": json.loads(info.settings.as_json()),
        }
        files.write_text(self._settings, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def rename(self, name: str) -> None:
        """The run under another name, beside where it is; then this object is of no use any more.
        Raises OSError, WriteError and InvalidInput."""
        info = self.read_info()
        target = self.path.with_name(name)
        self.path.rename(target)
        RunFolder(target).write_info(replace(info, settings=replace(info.settings, name=name)))

    def read_info(self) -> RunInfo:
        """Raises InvalidInput where this is no run's folder, or one of another version."""
        files.check_regular_file(self._settings)
        try:
            data = json.loads(self._settings.read_text(encoding="utf-8"))
            version = data["version"]
        except OSError as error:
            raise InvalidInput(
                f"There is no run in {self.path.name}. Name the folder of a run, which holds "
                "settings.json and state.safetensors."
            ) from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput(damaged("settings.json")) from error
        if version != VERSION:
            raise InvalidInput(
                f"The run was written by another version (format {version!r}, this one reads "
                f"{VERSION}). Resume it with that version, or start again."
            )
        settings = Settings.from_values(_of_its_time(data.get("settings")))
        if settings.rank is None or settings.resolution is None:  # only a model would know
            raise InvalidInput(damaged("settings.json"))
        try:
            return RunInfo(
                settings.resolve(),
                ModelIdentity(**data["model"]),
                str(data["architecture"]),
                str(data["pair"]),
                float(data["started"]),
                data.get("replaces") is True,
                StartedFrom(**said) if (said := data.get("started_from")) else None,
            )
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise InvalidInput(damaged("settings.json")) from error

    def save_state(self, trainer: Trainer, pair: str) -> None:
        """Replaces the state; the earlier one stays until the new one is whole. pair: RunInfo's.

        Raises WriteError where the disk is full or refuses.
        """
        numbers = json.dumps(trainer.numbers())
        metadata = {"version": str(VERSION), "pair": pair, "numbers": numbers}
        with files.writing(self.state) as temporary, open(temporary, "wb") as file:
            write_tensors(file, trainer.tensors(), metadata)

    def read_state(self, pair: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers as the trainer gave them. Raises InvalidInput, also for a state of
        another pair: one that an earlier run left, killed while this one replaced it."""
        if not self.has_state:
            raise InvalidInput(
                f"The run in {self.path.name} has no saved state. Start it again, and overwrite it."
            )
        try:
            with safe_open(self.state, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata["pair"] != pair:
                    raise ValueError("another pair")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(metadata["numbers"])
        except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
            raise InvalidInput(damaged("state.safetensors")) from error

    def saved_step(self, pair: str | None = None) -> int | None:
        """The step that the state on the disk is of; None where there is none that can be read, or
        where it is of another pair than the one named."""
        if not self.has_state:
            return None
        try:
            with safe_open(self.state, framework="pt") as file:
                metadata = file.metadata() or {}
            step = json.loads(metadata["numbers"])["step"]
            known = type(step) is int and pair in (None, metadata["pair"])
            return step if known else None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def append_progress(self, row: dict[str, object]) -> None:
        """Adds a line to progress.csv."""
        new = not self.progress.exists()
        with open(self.progress, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)

    def read_progress(self) -> list[dict[str, float]]:
        """The rows of progress.csv that are whole: numbers by column."""
        if not self.progress.is_file():
            return []
        try:
            with open(self.progress, newline="", encoding="utf-8", errors="replace") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return []
        found = []
        for row in rows:
            with contextlib.suppress(ValueError, TypeError):  # cut off, by a full disk
                found.append({name: float(value) for name, value in row.items() if value})
        return [row for row in found if {"step", "seconds"} <= row.keys()]

    def rewind_progress(self, step: int) -> None:
        """Drops lines of steps after `step`: they are trained again."""
        if not self.progress.is_file():
            return
        with open(self.progress, newline="", encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
        rows = [_ROW.fullmatch(line) for line in lines[1:]]  # one may be cut off, by a full disk
        kept = [row[0] for row in rows if row is not None and int(row[1]) <= step]
        files.write_text(self.progress, "".join(lines[:1] + kept))

    def note(self, text: str) -> None:
        """Adds a line to the log."""
        with open(self.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def run_path(out: Path, name: str, runs: Path | None = None) -> Path:
    """The folder of the run NAME whose pair goes to `out`: runs/NAME, or out/.unziplora/NAME where
    no folder for runs is named; or where an earlier version put one, there or in out/NAME."""
    hidden, older = out / HIDDEN / name, out / name
    path = hidden if runs is None else runs / name
    if not RunFolder(path).exists():
        if path != hidden and RunFolder(hidden).exists():
            return hidden
        if _is_older_run(RunFolder(older)):
            return older
    return path


def find_run(path: Path) -> RunFolder:
    """The run in a folder, or the run that OUT/NAME stands for."""
    folder = RunFolder(path.absolute())
    return folder if folder.exists() else RunFolder(run_path(folder.path.parent, path.name))


def list_runs(out: Path, runs: Path | None = None) -> list[RunFolder]:
    """The runs whose pairs go to `out`, by name, also those without a state
    (`RunFolder.has_state`): those that `run_path` gives."""
    found = {folder.name: folder for folder in _subfolders(out, out) if _is_older_run(folder)}
    for place in (out / HIDDEN, runs):
        if place is not None:
            found |= {run.name: run for run in _subfolders(place, out) if run.exists()}
    return [folder for _, folder in sorted(found.items())]


def _is_older_run(folder: RunFolder) -> bool:
    """Whether what lies in OUT/NAME is a run: folders there may be anyone's."""
    if not folder.exists():
        return False
    try:
        folder.read_info()
    except InvalidInput:
        return folder.has_state  # damaged, and still in the way
    return True


def _subfolders(folder: Path, out: Path) -> Iterator[RunFolder]:
    """As runs; links are left out: what they lead to is not ours."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield RunFolder(folder / entry.name, out)


def _of_its_time(settings: object) -> object:
    """With what a run did that is older than a setting: a mask left the other pixels no weight."""
    if isinstance(settings, Mapping) and settings.get("mask_content", "off") != "off":
        return {"mask_rest": 0.0, **settings}
    return settings


def damaged(file: str) -> str:
    return (
        f"The run's {file} is damaged or belongs to another model. "
        "Restore it from a backup, or start the run again and overwrite it."
    )


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
