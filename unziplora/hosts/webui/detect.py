"""Which WebUI this is: one entry for each that is supported, and the one fact that tells it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unziplora.errors import InvalidInput

if TYPE_CHECKING:
    from unziplora.host import Host, PredictionType

_PACKAGES = frozenset({"backend", "ldm_patched", "modules_forge", "sgm"})
_VERSION = "modules_forge.forge_version"


@dataclass(frozen=True)
class Marks:
    """What tells WebUIs apart. packages: those of a few names that are loaded. version: what a
    relative of Forge calls itself (`modules_forge.forge_version.version`), else empty."""

    packages: frozenset[str]
    version: str = ""

    def has(self, *packages: str) -> bool:
        return self.packages.issuperset(packages)


class HostClass(Protocol):
    """A class of hosts, as base.py's WebUIHost: made of the WebUI's model."""

    def __call__(self, model: Any, prediction_type: PredictionType | None) -> Host: ...

    def chosen_model(self) -> Any: ...

    def loaded_model(self) -> Any | None: ...


@dataclass(frozen=True)
class WebUI:
    """fits: whether the marks are this WebUI's. host: MODULE:CLASS of its hosts, imported when it
    is used."""

    name: str
    fits: Callable[[Marks], bool]
    host: str

    def host_class(self) -> HostClass:
        module, _, name = self.host.partition(":")
        found: HostClass = getattr(importlib.import_module(f"unziplora.hosts.webui.{module}"), name)
        return found


HOSTS = (
    # reForge and forge-classic have sgm too, and ldm_patched for what they load models with
    WebUI("Automatic1111", lambda marks: marks.packages == {"sgm"}, "a1111:A1111Host"),
    WebUI(
        "Forge",  # 2.0.1v1.10.1
        lambda marks: marks.has("backend") and marks.version.startswith("2."),
        "forge:ForgeHost",
    ),
    WebUI(
        "Forge Neo",
        lambda marks: marks.has("backend") and marks.version == "neo",
        "forge_neo:ForgeNeoHost",
    ),
    WebUI(
        "ersatzForge",
        lambda marks: marks.has("backend") and marks.version == "f2.ersatz",
        "forge:ErsatzForgeHost",
    ),
    WebUI(
        "reForge",  # 1.0.0v2-v1.10.1RC; Forge before its version 2 calls itself 0.0.17v1.8.0rc
        lambda marks: marks.has("ldm_patched") and marks.version.startswith("1."),
        "reforge:ReForgeHost",
    ),
    WebUI(
        "forge-classic",
        lambda marks: marks.has("ldm_patched") and marks.version == "classic",
        "reforge:ClassicHost",
    ),
)


def marks() -> Marks:
    """Of the WebUI in which this runs."""
    packages = frozenset(_PACKAGES & sys.modules.keys())
    version = ""
    if "modules_forge" in packages:
        try:
            module = importlib.import_module(_VERSION)
        except ImportError:
            module = None
        version = str(getattr(module, "version", "") or "")
    return Marks(packages, version)


def detect() -> WebUI | None:
    """None in a WebUI that is not known."""
    found = marks()
    return next((webui for webui in HOSTS if webui.fits(found)), None)


def detected() -> WebUI:
    """The same. Raises InvalidInput in a WebUI that is not known."""
    webui = detect()
    if webui is None:
        raise InvalidInput(unknown(marks()))
    return webui


def unknown(found: Marks) -> str:
    """Why nothing can be trained in a WebUI with these marks, and where it can."""
    names = ", ".join(webui.name for webui in HOSTS)
    if "modules_forge" in found.packages:
        which = f"This relative of Forge ({found.version or 'no version'}) is"
    else:
        which = "This WebUI is"
    return (
        f"{which} not supported, so UnZipLoRA cannot train on its models. Use one of {names}, or "
        "the command line (python -m unziplora)."
    )
