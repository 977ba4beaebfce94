"""What became of each job: batch.jsonl, a table, a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from unziplora import files
from unziplora.images.figure import Cell, Row, figure
from unziplora.images.load import open_image

State = Literal["completed", "refused", "failed", "stopped", "busy", "returned"]
_SHEET_ROWS = 100


@dataclass(frozen=True)
class Result:
    """One job's end. state: completed; refused (its image or words cannot be used); failed; stopped
    (its state is saved); busy (another driver has it); returned (its worker could not be reached:
    it goes to another). seconds: spent on it here. memory_gb: peak.
    files: base names. scores: by measure."""

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


def append_result(path: Path, result: Result) -> None:
    """A line of batch.jsonl. Raises OSError."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def table(results: Sequence[Result]) -> str:
    """A Markdown table, in the manifest's order."""
    measures = sorted({measure for result in results for measure in result.scores})
    head = ["name", "state", "steps", "minutes", "GB", *measures, "message"]
    rows = [head, ["---"] * len(head)]
    for result in results:
        memory = "" if result.memory_gb is None else f"{result.memory_gb:.1f}"
        scores = [f"{result.scores[m]:.3f}" if m in result.scores else "" for m in measures]
        message = result.message.replace("|", "\\|").replace("\n", " ")
        minutes = f"{result.seconds / 60:.1f}"
        steps = str(result.steps)
        rows.append([result.name, result.state, steps, minutes, memory, *scores, message])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def write_contact_sheet(
    path: Path, out: Path, images: Mapping[str, Path], results: Sequence[Result]
) -> bool:
    """An image a row: what was trained on, and the two cards' images where there are any; the first
    hundred. images: by job. False where nothing could be shown. Raises WriteError."""
    rows = []
    for result in [result for result in results if result.state == "completed"][:_SHEET_ROWS]:
        cells = [Cell(open_image(images[result.name]).image, "trained on")]
        for branch in ("content", "style"):
            card = out / f"{result.name}_{branch}.png"
            if card.is_file():
                with Image.open(card, formats=("PNG",)) as opened:
                    cells.append(Cell(opened.convert("RGB"), branch))
        rows.append(Row(result.name, cells))
    if not rows:
        return False
    with files.writing(path) as temporary:
        figure(rows, side=160).save(temporary, "PNG")
    return True
