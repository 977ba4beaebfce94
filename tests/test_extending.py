"""The code of docs/extending.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, python_blocks
from tests.training.runs import ONE_THREAD, hashes


def test_the_page_on_extending_runs_as_it_stands(image_file: Path, tmp_path: Path) -> None:
    code = "\n".join(python_blocks(ROOT / "docs" / "extending.md"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Finished(outcome='completed'" in done.stdout
    assert len(hashes(tmp_path / "results", "lantern")) == 2
