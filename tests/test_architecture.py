"""The map of the code names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "unziplora"


def named_paths() -> list[str]:
    """Every file and folder in backticks, as the page writes it."""
    text = PAGE.read_text("utf-8")
    return sorted(set(re.findall(r"`([\w./-]+(?:\.py|\.json|\.js|/))`", text)))


@pytest.mark.parametrize("name", named_paths())
def test_every_file_on_the_map_exists(name: str) -> None:
    if name.startswith("."):  # a run's folder
        return
    places: list[Path] = [ROOT / name, PACKAGE / name]
    if "/" not in name.rstrip("/"):  # named by its file alone, after its folder
        places += PACKAGE.rglob(name.rstrip("/"))
    assert any(place.exists() for place in places)


def test_every_package_is_on_the_map() -> None:
    text = PAGE.read_text("utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not [name for name in packages if f"{name}/" not in text]
