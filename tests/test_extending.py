"""The code of docs/extending.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, draw_image, python_blocks
from tests.training.runs import hashes


def test_the_page_on_extending_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_image(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(python_blocks(ROOT / "docs" / "extending.md")), {"__name__": "__main__"})
    assert "Finished(outcome='completed'" in capsys.readouterr().out
    assert len(hashes(tmp_path / "results", "lantern")) == 2
