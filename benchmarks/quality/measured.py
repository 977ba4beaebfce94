"""What was measured already, a line each in a file small enough to keep with the code.

A final table takes hours. With the file it can be made in several sittings, on several machines,
and nothing is trained twice: a line counts only for the model, the networks that judge, the code of
the method and the defaults of training that it was measured with. It does not see other code: who
changes how training computes gives another file (`--measured`), and `--quick` never reads one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.quality.runs import Job
from mini_world.probes import FOLDER as JUDGES
from unziplora.method import branches
from unziplora.training.settings import Settings

DIGITS = 5


def fingerprint(model: Path, referees: Sequence[str]) -> str:
    """Of what trainings and scores depend on."""
    digest = hashlib.sha256(json.dumps([asdict(Settings("a", "b")), *referees]).encode())
    method = Path(branches.__file__).parent.glob("*.py")
    for path in (model, *sorted(JUDGES.glob("*.safetensors")), *sorted(method)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def key_of(job: Job, style_of: Job | None) -> str:
    """What a line is found by: a training, and whose style its content was crossed with."""
    return job.key if style_of is None else f"{job.key} x {style_of.key}"


class Measured:
    """Lines of one fingerprint; those of others stay in the file. path: None keeps nothing."""

    def __init__(self, path: Path | None, mark: str) -> None:
        self._path, self._mark = path, mark
        self._known: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):  # cut off, where the program was killed
                    entry = json.loads(line)
                    if entry["by"] == mark:
                        self._known[entry["of"]] = entry["found"]

    def get(self, key: str) -> dict[str, float] | None:
        return self._known.get(key)

    def add(self, key: str, found: Mapping[str, float]) -> None:
        rounded = {name: round(value, DIGITS) for name, value in found.items()}
        self._known[key] = rounded
        if self._path is not None:
            entry = {"by": self._mark, "of": key, "found": rounded}
            whole = not self._path.exists() or self._path.read_bytes()[-1:] in (b"", b"\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(("" if whole else "\n") + json.dumps(entry) + "\n")
