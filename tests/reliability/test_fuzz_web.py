"""Damaged requests and fields: some dozens each; more in `python -m benchmarks.reliability`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.fuzz_web import api, page


def test_no_request_to_the_api_ends_in_a_500_or_writes_elsewhere(host: Any, tmp_path: Path) -> None:
    result = api(150, lambda: host, tmp_path)
    assert not result.findings, "\n".join(result.findings[:10])
    assert result.answers["422"] > 20
    assert result.started > 0


def test_no_field_of_the_page_can_hold_what_it_cannot_answer(host: Any, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    result = page(150, lambda: host, tmp_path)
    assert not result.findings, "\n".join(result.findings[:10])
    assert result.answers["refused"] > 20
