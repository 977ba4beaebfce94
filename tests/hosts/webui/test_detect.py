"""Which WebUI it is, told by the modules that are loaded."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from unziplora import extension as webui

TOLD_BY = ("backend", "ldm_patched", "modules_forge", "sgm")


@pytest.mark.parametrize(
    ("loaded", "version", "program"),
    [
        ({"sgm"}, "", "Automatic1111"),
        ({"backend", "modules_forge"}, "2.0.1v1.10.1", "Forge"),
        ({"ldm_patched", "modules_forge", "sgm"}, "1.0.0v2-v1.10.1RC", "reForge"),
        ({"ldm_patched", "modules_forge", "sgm"}, "classic", "forge-classic"),
        ({"ldm_patched", "modules_forge", "sgm"}, "0.0.17v1.8.0rc", None),  # Forge before 2
        ({"ldm_patched", "sgm"}, "", None),
        (set(), "", None),
    ],
)
def test_a_webui_is_known_by_what_it_has_loaded(
    monkeypatch: pytest.MonkeyPatch, loaded: set[str], version: str, program: str | None
) -> None:
    for name in TOLD_BY:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in loaded:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    told = ModuleType("modules_forge.forge_version")
    told.version = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules_forge.forge_version", told)
    assert webui._program() == program
