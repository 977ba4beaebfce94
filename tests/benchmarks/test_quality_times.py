"""What a step of each variant takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="peft is not installed (the bench extra)")

from benchmarks.quality import times
from benchmarks.quality.variants import AS_CHOSEN


@pytest.mark.slow
def test_each_variant_is_timed_against_the_defaults_of_its_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masked too, though the miniature's own image has no mask."""
    variants = {AS_CHOSEN: {}, "masked": {"mask_content": "subject"}}
    monkeypatch.setattr(times, "VARIANTS", variants)
    written = tmp_path / "times.json"
    monkeypatch.setattr(
        sys, "argv", ["times", "--trials", "1", "--steps", "7", "--json", str(written)]
    )
    times.main()
    found = json.loads(written.read_text("utf-8"))
    assert found["over_default"][AS_CHOSEN] == [1.0]
    default, masked = (found["seconds"][name][0] for name in variants)
    assert default > 0
    assert found["over_default"]["masked"] == [round(masked / default, 3)]
    assert "masked" in capsys.readouterr().out
