"""Damaged input for every parser: some hundred cases each; more in `python -m
benchmarks.reliability`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability.fuzz import PARSERS, run

FEW = {"states, resumed": 25, "checkpoint headers": 100}  # each resumes a run, writes 8 MB


@pytest.mark.parametrize("parser", PARSERS)
def test_damaged_input_is_read_or_refused_in_two_sentences(parser: str, tmp_path: Path) -> None:
    result = run(PARSERS[parser], FEW.get(parser, 400), tmp_path)
    assert not result.findings, "\n".join(result.findings[:10])
    assert result.refused > 0  # the damage is felt
    assert result.cases == FEW.get(parser, 400)
