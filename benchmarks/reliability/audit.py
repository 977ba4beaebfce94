"""What is opened and connected to, by Python's own audit events, while a run and all that is done
with its pair go their way, and while the API and the page are under fire: nothing outside the
output folder, the folder to publish in, the temporary folder and Python's own files, and nothing is
connected to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import unziplora
from benchmarks.reliability import fuzz_web
from benchmarks.reliability.audit_events import audited, connected, opened_outside, pythons_own
from benchmarks.reliability.small import begin
from unziplora.app.library import Library
from unziplora.app.uploads import upload_folder
from unziplora.lora.merge import merge
from unziplora.lora.publish import publish
from unziplora.method.prompts import BRANCHES

_ROOT = Path(__file__).parents[2]
_SETTINGS: dict[str, Any] = {"steps": 4, "save_minutes": 1e-9, "preview_every": 2,
                             "preview_steps": 1, "snapshot_every": 3}  # fmt: skip


@dataclass
class Result:
    """events: how many openings and changes of files were heard."""

    events: int = 0
    findings: list[str] = field(default_factory=list)


def life(make_host: Callable[[], Any], folder: Path) -> Result:
    """A run, stopped and resumed; its pair listed, inspected, merged, drawn, published, deleted."""
    folder.mkdir(exist_ok=True)
    out = folder / "out"

    def live() -> None:
        run = begin(make_host(), out, **_SETTINGS)
        run.send("stop")
        list(run)
        list(unziplora.resume(run.folder.path, host=make_host()))
        library = Library(lambda: out)
        library.inspect("pair_content.safetensors")
        pair = {role: library.file("pair", role) for role in BRANCHES}
        merge(out / "both.safetensors", [(path, 1.0) for path in pair.values()])
        publish(folder / "shared", pair, {})
        library.runs()
        library.delete("pair")

    return _heard(live, [folder])


def under_fire(what: str, count: int, make_host: Callable[[], Any], folder: Path) -> Result:
    """what: of fuzz_web, "api" or "page"."""
    folder.mkdir(exist_ok=True)
    fire = getattr(fuzz_web, what)
    return _heard(lambda: fire(count, make_host, folder), [folder, upload_folder()])


def _heard(act: Callable[[], object], own: Sequence[Path]) -> Result:
    temporary = Path(tempfile.gettempdir())
    with audited() as heard:
        act()
    allowed = [*own, _ROOT, *pythons_own(), temporary]
    findings = [*opened_outside(heard, allowed), *connected(heard)]
    return Result(len(heard), findings)
