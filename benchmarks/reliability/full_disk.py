"""A disk that gets really full while a run trains, with its log and the program's output on it.

The disk is a tmpfs that is filled up to so many kB where one may be mounted (root on Linux), and
else a limit on the size of a file. Afterwards there is room again, and what could not end is
resumed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.reliability.filler import FILLER
from benchmarks.reliability.kills import damaged_files
from benchmarks.results import pair_hashes
from unziplora.training.run_folder import RunFolder, run_path

ROOM = 64_000  # kB, where the disk is not full
TMPFS = "tmpfs"


@dataclass
class Result:
    """disk: "tmpfs" or "a limit on files". completed: with both files on it; elsewhere: with both
    files in another folder; failed: with a state to resume; refused: before the first step."""

    disk: str = ""
    cases: int = 0
    completed: int = 0
    elsewhere: int = 0
    failed: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)


def run(folder: Path, cases: int) -> Result:
    """Filled in each step in turn, up to nothing or up to what all that follows takes."""
    from benchmarks.reliability import filling

    server: Any = get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.reliability.filling"])

    def process(out: Path, filled: filling.Filled | None = None) -> int:
        child = server.Process(target=filling.train, args=(out, folder / "elsewhere", filled))
        child.start()
        child.join()
        return int(child.exitcode)

    whole = folder / "undisturbed" / "out"
    whole.parent.mkdir()
    assert process(whole) == 0
    sizes = [path.stat().st_size for path in whole.parent.rglob("*") if path.is_file()]
    expected = pair_hashes(whole)
    with _disk(folder / "disk") as (disk, kind):
        result = Result(kind)
        for number in range(cases):
            share = number // filling.STEPS / max(1, cases // filling.STEPS)
            room = round(share * (sum(sizes) if kind == TMPFS else max(sizes)))
            filled = filling.Filled(number % filling.STEPS + 1, room, kind == TMPFS)
            _case(disk, process, filled, expected, result)
        return result


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that may be filled up, and how."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}k", "unziplora-test", str(path)]
    kind = "a limit on files"
    with contextlib.suppress(OSError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            kind = TMPFS
    try:
        yield path, kind
    finally:
        if kind == TMPFS:
            subprocess.run(["umount", str(path)], check=True)


def _case(
    disk: Path,
    process: Callable[..., int],
    filled: Any,
    expected: tuple[str, ...],
    result: Result,
) -> None:
    what = f"{filled.room} bytes left at step {filled.step}"
    result.cases += 1
    case = Path(tempfile.mkdtemp(dir=disk))
    out, elsewhere = case / "out", disk.with_name("elsewhere")
    shutil.rmtree(elsewhere, ignore_errors=True)
    code = process(out, filled)
    (case / FILLER).unlink(missing_ok=True)
    faults = damaged_files(case)
    where = _ended(out, elsewhere, code, result)
    if where is None:
        where = _resumed(out, elsewhere, process, faults, result)
    if pair_hashes(where) != expected:
        faults.append("other tensors in the end")
    result.findings += [f"{what}, code {code}: {fault}" for fault in faults]
    shutil.rmtree(case)


def _ended(out: Path, elsewhere: Path, code: int, result: Result) -> Path | None:
    """Where both files are, if the run wrote them."""
    if code != 0:
        return None
    if (out / "pair_style.safetensors").is_file():
        result.completed += 1
        return out
    found = [path.parent for path in elsewhere.rglob("pair_style.safetensors")]
    result.elsewhere += bool(found)
    return found[0] if found else None


def _resumed(
    out: Path, elsewhere: Path, process: Callable[..., int], faults: list[str], result: Result
) -> Path:
    """Where both files are after it was resumed, or begun again, with room on the disk."""
    kept = [RunFolder(path.parent) for path in elsewhere.rglob("state.safetensors")]
    folder = kept[0] if kept else RunFolder(run_path(out, "pair"))
    result.failed += folder.has_state
    result.refused += not folder.has_state
    if not folder.has_state and folder.read_progress():
        faults.append("steps were done, and nothing is saved")
    where = folder.out if folder.has_state else out
    if process(where) != 0:
        faults.append("it does not go on when there is room again")
    return where
