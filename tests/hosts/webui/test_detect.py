"""Which WebUI it is, told by the modules that are loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from unziplora.errors import InvalidInput
from unziplora.host import Host
from unziplora.hosts.webui.detect import HOSTS, detect, detected

PACKAGES = ("backend", "ldm_patched", "modules_forge", "sgm")
Disguise = Callable[..., None]


@pytest.fixture
def disguise(monkeypatch: pytest.MonkeyPatch) -> Disguise:
    """Loads packages, and what a relative of Forge calls itself."""

    def load(packages: set[str], version: str = "") -> None:
        for name in PACKAGES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        for name in packages:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        module = ModuleType("modules_forge.forge_version")
        module.version = version  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "modules_forge.forge_version", module)

    return load


@pytest.mark.parametrize(
    ("packages", "version", "name"),
    [
        ({"sgm"}, "", "Automatic1111"),
        ({"backend", "modules_forge"}, "2.0.1v1.10.1", "Forge"),
        ({"backend", "modules_forge"}, "neo", "Forge Neo"),
        ({"backend", "modules_forge"}, "f2.ersatz", "ersatzForge"),
        ({"ldm_patched", "modules_forge", "sgm"}, "1.0.0v2-v1.10.1RC", "reForge"),
        ({"ldm_patched", "modules_forge", "sgm"}, "classic", "forge-classic"),
        ({"ldm_patched", "modules_forge", "sgm"}, "0.0.17v1.8.0rc", None),  # Forge before 2
        ({"backend", "modules_forge"}, "3.0", None),
        ({"ldm_patched", "sgm"}, "", None),
        (set(), "", None),
    ],
)
def test_a_webui_is_known_by_what_it_has_loaded(
    disguise: Disguise, packages: set[str], version: str, name: str | None
) -> None:
    disguise(packages, version)
    found = detect()
    assert (found.name if found else None) == name


def test_an_unknown_relative_of_forge_is_refused_by_its_own_name(disguise: Disguise) -> None:
    disguise({"backend", "modules_forge"}, "forge-of-tomorrow")
    with pytest.raises(InvalidInput, match=r"relative of Forge \(forge-of-tomorrow\).*Use one of"):
        detected()


def test_a_relative_of_forge_without_a_version_is_refused_too(
    disguise: Disguise, monkeypatch: pytest.MonkeyPatch
) -> None:
    disguise({"backend", "modules_forge"})
    monkeypatch.delitem(sys.modules, "modules_forge.forge_version")
    with pytest.raises(InvalidInput, match="no version"):
        detected()


@pytest.mark.parametrize("webui", HOSTS, ids=lambda webui: webui.name)
def test_every_known_webui_has_a_class_that_is_a_host(webui: object) -> None:
    kind = webui.host_class()  # type: ignore[attr-defined]
    members = {name for name in vars(Host) if not name.startswith("_")} - {"model"}
    assert not [name for name in members if not hasattr(kind, name) and name != "prediction_type"]
    assert callable(kind.chosen_model)
    assert callable(kind.loaded_model)


def test_no_webui_fits_the_marks_of_another(disguise: Disguise) -> None:
    for packages, version in (
        ({"sgm"}, ""),
        ({"backend", "modules_forge"}, "2.0.1v1.10.1"),
        ({"backend", "modules_forge"}, "neo"),
        ({"ldm_patched", "modules_forge", "sgm"}, "classic"),
    ):
        disguise(packages, version)
        found = detect()
        assert found is not None
        from unziplora.hosts.webui.detect import marks

        assert [webui for webui in HOSTS if webui.fits(marks())] == [found]
