"""Presets of the Train tab: what each writes into the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unziplora.ui.html import number

DEFAULT, FAST, LOW_MEMORY = "Default", "Fast", "Low memory"
BUILT_IN = (DEFAULT, FAST, LOW_MEMORY)
FIELDS = ("steps", "lr", "rank", "memory")  # that a built-in preset fills
_EMPTY: Mapping[str, str] = {"steps": "", "lr": "", "rank": "", "memory": "auto"}
_LOW_RANK = 16
_FAST_STEPS, _FAST_RATE = 150, 2  # of the quality benchmark's --part fewer; times the model's own


def built_in(
    name: str, defaults: Mapping[str, Any], smallest_plan: Callable[[], str]
) -> dict[str, str]:
    """The values of FIELDS; an empty one leaves the setting to its default. defaults: of the loaded
    model, with the keys steps, lr and rank. smallest_plan: gives the memory plan with the least
    VRAM."""
    if name == FAST:
        steps, lr = _fast(defaults)
        return {**_EMPTY, "steps": str(steps), "lr": number(lr)}
    if name == LOW_MEMORY:
        return {**_EMPTY, "memory": smallest_plan(), "rank": str(_low_rank(defaults))}
    return dict(_EMPTY)


def describe(defaults: Mapping[str, Any]) -> str:
    """What the built-in presets mean for the loaded model, in one line."""
    fast, rate = _fast(defaults)
    return (
        f"{DEFAULT}: {defaults['steps']} steps, rank {defaults['rank']}, learning rate "
        f"{number(defaults['lr'])} · {FAST}: {fast} steps, learning rate {number(rate)} · "
        f"{LOW_MEMORY}: least VRAM, rank {_low_rank(defaults)}"
    )


def _fast(defaults: Mapping[str, Any]) -> tuple[int, float]:
    if defaults["steps"] <= _FAST_STEPS:
        return defaults["steps"], defaults["lr"]
    return _FAST_STEPS, _FAST_RATE * defaults["lr"]


def _low_rank(defaults: Mapping[str, Any]) -> int:
    return min(_LOW_RANK, int(defaults["rank"]))
