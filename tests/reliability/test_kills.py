"""Twenty kills; two hundred in `python -m benchmarks.reliability`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL, which Windows does not have")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    from benchmarks.reliability.kills import run  # loads what is forked: the documented host

    result = run(20, tmp_path, seed=1)
    assert not result.findings, "\n".join(result.findings)
    assert result.kills == 20
    assert result.in_writes > 5
    assert result.leftovers > 0  # something was there to be cleared away
    assert result.most_repeated <= 1
