"""A stand-in for a WebUI's own modules, as far as a test needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PACKAGES = ("backend", "ldm_patched", "modules_forge", "sgm")


class StandIn:
    """Modules below `modules`, made as they are filled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        for name in [*PACKAGES, "modules_forge.forge_version"]:
            monkeypatch.delitem(sys.modules, name, raising=False)
        self._put("modules")
        self.fill("shared", opts=SimpleNamespace(), cmd_opts=SimpleNamespace())
        self.fill("progress")

    def _put(self, name: str) -> ModuleType:
        module = ModuleType(name)
        self._monkeypatch.setitem(sys.modules, name, module)
        return module

    def fill(self, name: str, **members: Any) -> ModuleType:
        """modules.NAME with these members."""
        module = sys.modules.get(f"modules.{name}") or self._put(f"modules.{name}")
        vars(module).update(members)
        return module

    def load(self, *packages: str, version: str = "") -> None:
        """Packages by which a WebUI is told."""
        for package in packages:
            self._put(package)
        if "modules_forge" in packages:
            vars(self._put("modules_forge.forge_version"))["version"] = version


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(monkeypatch)


Disguise = Callable[..., None]
