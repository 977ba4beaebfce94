"""The line at the top of the Train tab: which checkpoint is trained on, its memory and its time."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from unziplora.app.service import Service
from unziplora.errors import UnZipLoRAError
from unziplora.host import ModelIdentity
from unziplora.training.memory_forecast import Forecast
from unziplora.ui.html import rough_duration

Light = Literal["green", "amber", "red"]
_TIGHT = 0.9  # of the free memory; above it another program may make the difference
_NOT_LOADED = "Checkpoint: not loaded yet. Its memory and time are shown once it is."


@dataclass(frozen=True)
class Header:
    """line: as HTML. architecture: of the loaded model, or None where it is not known."""

    line: str
    architecture: str | None = None


def header(service: Service, settings: Mapping[str, Any]) -> Header:
    """settings: of the run that the fields describe."""
    identity = known_checkpoint(service)
    try:
        expected = service.forecast(settings)
    except UnZipLoRAError as error:
        return Header(_line("red", [*_name(identity), str(error)], loaded=False))
    except Exception:  # a border: a failing forecast must not keep the page from its news
        traceback.print_exc()
        expected = None
    if expected is None:
        return Header(_line(None, _name(identity) or [_NOT_LOADED], loaded=False))
    forecast, seconds = expected
    time = [] if seconds is None else [f"about {rough_duration(seconds)}"]
    parts = [*_name(identity), forecast.text, forecast.choice, *time]
    return Header(_line(light(forecast), parts, loaded=True), forecast.architecture)


def known_checkpoint(service: Service) -> ModelIdentity | None:
    """Name and family of the loaded checkpoint; None also for one that cannot be trained on, whose
    forecast says why."""
    try:
        return service.checkpoint()
    except UnZipLoRAError:
        return None
    except Exception:  # a border, as above
        traceback.print_exc()
        return None


def light(of: Forecast) -> Light:
    """Green: fits. Amber: fits tightly. Red: may not fit."""
    if not of.fits:
        return "red"
    tight = of.free is not None and of.need > _TIGHT * of.free
    return "amber" if tight else "green"


def _name(identity: ModelIdentity | None) -> list[str]:
    if identity is None:
        return []
    family = f" ({identity.family})" if identity.family else ""
    return [f"Checkpoint: {identity.name}{family}"]


def _line(colour: Light | None, parts: list[str], *, loaded: bool) -> str:
    state = " data-loaded" if loaded else ""
    dot = f'<i class="uz-dot uz-{colour}"></i>' if colour else ""
    text = "".join(f"<span>{escape(part)}</span>" for part in parts)
    return f'<div class="uz-model"{state}>{dot}{text}</div>'
