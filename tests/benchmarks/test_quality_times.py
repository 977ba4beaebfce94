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
def test_each_variants_fastest_trial_is_compared_with_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masked too, though the miniature's own image has no mask."""
    variants = {AS_CHOSEN: {}, "masked": {"mask_content": "subject"}}
    monkeypatch.setattr(times, "VARIANTS", variants)
    written = tmp_path / "times.json"
    monkeypatch.setattr(
        sys, "argv", ["times", "--trials", "2", "--steps", "6", "--json", str(written)]
    )
    times.main()
    found = json.loads(written.read_text("utf-8"))
    assert found["over_default"][AS_CHOSEN] == 1.0
    default, masked = (found["seconds"][name] for name in variants)
    assert len(default) == len(masked) == 2
    assert found["over_default"]["masked"] == round(min(masked) / min(default), 3)
    assert "masked" in capsys.readouterr().out
