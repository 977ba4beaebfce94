"""Where a new run writes: its name in an output folder, and whether that is free.

It is checked twice: before anything costly is done, without a model; and again under the run's lock
when the run writes, because another program may have taken the name meanwhile.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from unziplora import files
from unziplora.errors import InvalidInput
from unziplora.lora.pair import pair_files
from unziplora.training.pair_writer import check_free, check_own
from unziplora.training.run_folder import RunFolder, run_path
from unziplora.training.settings import Settings


def new_run_folder(out: Path, name: str, runs: Path | None = None) -> RunFolder:
    """The folder of a run whose pair goes to `out`: in `runs`, or where it always is in `out`."""
    return RunFolder(run_path(out, name, runs), out)


def check_destination(
    settings: Settings, out: Path, *, overwrite: bool, runs: Path | None = None
) -> None:
    """Raises InvalidInput where a run of this name cannot begin in a folder; needs no model.
    runs: where the runs' folders are, instead of in `out`."""
    name = files.check_name(settings.file_name)
    files.check_output_folder(out)
    folder = new_run_folder(out, name, runs)
    for path in (folder.path.parent, folder.path):
        if os.path.lexists(path) and not path.is_dir():
            raise InvalidInput(
                f"{path.name} is a file, where the run's folder should be. "
                "Move it away, or choose another name or output folder."
            )
    if not overwrite:
        check_name_free(folder, name)


def check_name_free(folder: RunFolder, name: str) -> None:
    """Raises InvalidInput where a pair, or a run that could be resumed, has this name already."""
    check_free(folder.out, name)
    if folder.exists():
        raise InvalidInput(
            f"There is a run named {name} in this folder already. Resume it, overwrite it, or "
            "choose another name."
        )


def unclaimed_name(out: Path, name: str, pair: str) -> str:
    """`name`, or NAME-2, NAME-3 and so on, so that no files of others are replaced by those of a
    pair (RunInfo.pair)."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if _is_free_or_own(out, n, pair))


def _is_free_or_own(out: Path, name: str, pair: str) -> bool:
    try:
        if any(path.exists() for path in pair_files(out, name).values()):
            check_own(out, name, pair)
        else:
            check_free(out, name)
    except InvalidInput:
        return False
    return True
