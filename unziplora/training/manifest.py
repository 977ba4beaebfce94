"""The manifest of a batch: one image a line, checked whole before anything starts."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.files import check_name, check_regular_file
from unziplora.training.settings import Settings

_SHOWN_FAULTS = 20  # of a manifest with many; the rest is counted
_MOST_BYTES = 4_000_000  # about 60,000 lines
_MOST_LINES = 100_000
_MOST_CONTAINERS = 200  # of a line; a table of blocks has one for each architecture, and brackets
# in prompts count too
_SETTINGS = {field.name for field in fields(Settings)}
_TEXTS = {name for name, hint in get_type_hints(Settings).items() if "str" in str(hint)}


@dataclass(frozen=True)
class BatchJob:
    """One image with its settings. line: in the manifest, from 1. name: of the pair's files."""

    line: int
    name: str
    image: Path
    settings: Mapping[str, Any]


def read_manifest(path: Path, defaults: Mapping[str, Any]) -> list[BatchJob]:
    """The jobs of a CSV file with a header line, or of JSON lines.

    Columns: image (relative to the manifest), subject, style, and any setting; defaults: settings
    for lines that leave them out. Raises InvalidInput with every fault and its line.
    """
    data = manifest_bytes(path)
    return parse_manifest(data, path.name, lambda image: _file_in(path.parent, image), defaults)


def manifest_bytes(path: Path) -> bytes:
    """Of a manifest's file; no more of it is read than a manifest may have. Raises InvalidInput."""
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"The manifest {path.name} cannot be read ({getattr(error, 'strerror', error)}). Name "
            "a CSV or JSON-lines file."
        ) from error
    if len(data) > _MOST_BYTES or data.count(b"\n") > _MOST_LINES:
        raise InvalidInput(
            f"{path.name} has more than {_MOST_BYTES // 1_000_000} MB or {_MOST_LINES} lines, too "
            "many for one batch. Split it into several."
        )
    return data


def _file_in(folder: Path, image: str) -> Path | None:
    file = (folder / image).absolute()
    # os.path's, to which a name that no file can have is one that does not exist
    return file if os.path.isfile(file) else None


def parse_manifest(
    data: bytes, file: str, find: Callable[[str], Path | None], defaults: Mapping[str, Any]
) -> list[BatchJob]:
    """The jobs of a manifest's bytes, as read_manifest. file: its name, whose ending says of which
    kind it is; find: an image by what the manifest calls it."""
    faults: list[str] = []
    jobs: list[BatchJob] = []
    lines_by_name: dict[str, int] = {}
    for line, row in _rows(data, file, faults):
        try:
            job = _job(find, line, {**defaults, **row})
        except UnZipLoRAError as error:
            faults.append(f"line {line}: {error}")
            continue
        earlier = lines_by_name.setdefault(job.name.casefold(), line)
        if earlier != line:
            faults.append(
                f"line {line}: The name {job.name} is that of line {earlier} too. "
                "Name one of them in a column `name`."
            )
        jobs.append(job)
    if faults:
        shown = "".join(f"\n· {fault}" for fault in faults[:_SHOWN_FAULTS])  # the page keeps lines
        more = f"\n· and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        raise InvalidInput(
            f"{file} has {len(faults)} fault{'s' if len(faults) > 1 else ''}; nothing was "
            f"started. Correct them:{shown}{more}"
        )
    if not jobs:
        raise InvalidInput(f"{file} names no image. Add a line for each image.")
    return jobs


def shard(jobs: list[BatchJob], text: str) -> list[BatchJob]:
    """Every n-th job beginning with the i-th, of "i/n" with i from 1. Raises InvalidInput."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise InvalidInput(f"The shard {text!r} is not i/n. Write for example 1/4, ..., 4/4.")
    return jobs[int(first) - 1 :: int(count)]


def _rows(data: bytes, file: str, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"Line {line} of the manifest {file} is not UTF-8. Save it as UTF-8 (in Excel: "
            "CSV UTF-8)."
        ) from error
    if Path(file).suffix.lower() in (".jsonl", ".ndjson", ".json"):
        yield from _json_rows(text, faults)
    else:
        yield from _csv_rows(file, text, faults)


def _json_rows(text: str, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):  # splitlines would cut at U+2028, too
        if not content.strip():
            continue
        try:
            _check_containers(content)
            row = json.loads(content, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield line, {key: value for key, value in row.items() if value is not None}
        else:
            faults.append(
                f"line {line}: This is not a JSON object of settings with each key once. "
                "Write one object a line."
            )


def _check_containers(text: str) -> None:
    """Raises ValueError for more lists and objects than the settings of a run can have: each takes
    far more memory than its two letters."""
    if text.count("[") + text.count("{") > _MOST_CONTAINERS:
        raise ValueError("too many lists and objects")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError where a key stands twice: one of them would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _csv_rows(file: str, text: str, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, strict=True, delimiter=_delimiter(text))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(header, file)
        last = reader.line_num
        for cells in reader:
            line, last = last + 1, reader.line_num  # quoted cells may hold line breaks
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(header) :]):
                faults.append(
                    f"line {line}: It has {len(cells)} cells for {len(header)} columns. "
                    "Put text with a comma in quotes."
                )
                continue
            row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            yield line, {k: _typed(k, v) for k, v in row.items() if k and v}
    except csv.Error as error:
        faults.append(f"line {reader.line_num}: It is not CSV ({error}). Check its quotes.")


def _delimiter(text: str) -> str:
    """A comma, or what spreadsheets of other countries write in its place, by the header line."""
    header = text.lstrip().partition("\n")[0]
    return next((d for d in ";\t" if d in header and "," not in header), ",")


def _check_header(header: list[str], file: str) -> None:
    if "image" not in header:
        raise InvalidInput(
            f"The first line of {file} has no column `image`. Begin with: image,subject,style"
        )
    for name in header:
        if name and header.count(name) > 1:
            raise InvalidInput(
                f"The first line of {file} has the column `{name}` twice. Remove one of them."
            )


def _typed(field: str, cell: str) -> Any:
    """A cell as the setting's own type: texts as they stand, the rest as JSON says it."""
    if field in _TEXTS or field == "image":
        return cell
    try:
        _check_containers(cell)
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # the settings refuse it in their own words


def _job(find: Callable[[str], Path | None], line: int, row: dict[str, Any]) -> BatchJob:
    image = row.pop("image", None)
    if not isinstance(image, str) or not image:
        raise InvalidInput("There is no image. Name its file.")
    unknown = sorted(row.keys() - _SETTINGS)
    if unknown:
        raise InvalidInput(f"Unknown setting {unknown[0]!r}. See: unziplora train --help")
    for needed in ("subject", "style"):
        if not row.get(needed):
            raise InvalidInput(f"There is no {needed}. Say in a word or two what it is.")
    settings = Settings(**row)
    file = find(image)
    if file is None:
        raise InvalidInput(f"There is no image {image!r}. Check the name.")
    return BatchJob(line, check_name(settings.file_name), file, row)
