"""What can be said of Ray's actors without Ray; with it, see test_miniature.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unziplora.batch.ray_driver import RayWorkers


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unziplora.batch.base import StandaloneBase
    from unziplora.errors import InvalidInput

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'unziplora\[ray\]'"):
        RayWorkers(None, 1, StandaloneBase("mini"), tmp_path)
