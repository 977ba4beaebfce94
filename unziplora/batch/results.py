"""What became of each job: batch.jsonl, a table, a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from unziplora import files
from unziplora.images.figure import Cell, Row, figure
from unziplora.scores.measure import CONDITIONS, shown, summary
from unziplora.training.run_folder import RunFolder, run_path

State = Literal["completed", "refused", "failed", "stopped", "busy", "returned"]
_SHEET_ROWS = 100
_SIDE = 160  # pixels of an image on the sheet


@dataclass(frozen=True)
class Result:
    """One job's end. state: completed; refused (its image or words cannot be used); failed; stopped
    (its state is saved); busy (another driver has it); returned (its worker could not be reached:
    it goes to another). seconds: spent on it here. memory_gb: peak.
    files: base names. scores: by measure; protocol: how they were measured (scores/protocol.py)."""

    name: str
    state: State
    message: str = ""
    steps: int = 0
    seconds: float = 0.0
    memory_gb: float | None = None
    plan: str = ""
    worker: str = ""
    files: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)


def append_result(path: Path, result: Result) -> None:
    """A line of batch.jsonl. Raises OSError."""
    # a name that is no UTF-8 has surrogates in it, which are escaped as JSON has them
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def table(results: Sequence[Result], *, scores: bool = True) -> str:
    """A Markdown table, in the manifest's order; below it the means of scores with their standard
    errors over images, which are a method's row of the paper's Table 2."""
    measures = list(by_measure(results)) if scores else []
    head = ["name", "state", "steps", "minutes", "GB", *map(shown, measures), "message"]
    rows = [head, *(_row(result, measures) for result in results)]
    if measures:
        rows.append(_means(by_measure(results)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(n) for cell, n in zip(row, widths, strict=True)] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in padded)


def _row(result: Result, measures: Sequence[str]) -> list[str]:
    memory = "" if result.memory_gb is None else f"{result.memory_gb:.1f}"
    scores = [f"{result.scores[m]:.3f}" if m in result.scores else "" for m in measures]
    message = files.printable(result.message.replace("\n", " ")).replace("|", "\\|")
    minutes = f"{result.seconds / 60:.1f}"
    return [result.name, result.state, str(result.steps), minutes, memory, *scores, message]


def by_measure(results: Sequence[Result]) -> dict[str, list[float]]:
    """All scores that there are, in the order in which they were measured."""
    found: dict[str, list[float]] = {}
    for result in results:
        for measure, value in result.scores.items():
            found.setdefault(measure, []).append(value)
    return found


def _means(found: Mapping[str, Sequence[float]]) -> list[str]:
    count = max(map(len, found.values()))
    return [f"mean of {count}", "", "", "", "", *(str(summary(v)) for v in found.values()), ""]


def write_contact_sheet(path: Path, out: Path, results: Sequence[Result]) -> bool:
    """An image a row: what was trained on, and the two cards' images where there are any, or the
    first of its samples; the first hundred. False where nothing could be shown. Raises
    WriteError."""
    completed = [result for result in results if result.state == "completed"][:_SHEET_ROWS]
    rows = [Row(result.name, cells) for result in completed if (cells := _cells(out, result.name))]
    if not rows:
        return False
    with files.writing(path) as temporary:
        figure(rows, side=_SIDE).save(temporary, "PNG")
    return True


def _cells(out: Path, name: str) -> list[Cell]:
    """Of what lies in the output folder: the manifest's images may be gone by now."""
    places = {"trained on": [RunFolder(run_path(out, name)).image]}
    for condition in CONDITIONS:
        sample = out / "samples" / name / condition / "00.png"
        places[condition] = [sample, out / f"{name}_{condition}.png"]
    return [Cell(image, caption) for caption, paths in places.items() if (image := _first(paths))]


def _first(paths: Sequence[Path]) -> Image.Image | None:
    """The first that can be read."""
    for path in paths:
        try:
            with Image.open(path, formats=("PNG",)) as opened:
                return opened.convert("RGB")
        except (OSError, ValueError, SyntaxError):  # not there, or cut off
            continue
    return None
