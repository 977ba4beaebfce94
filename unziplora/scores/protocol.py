"""How scores were measured: only those of one protocol are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from unziplora.scores.encoders import Encoder
from unziplora.scores.measure import LEGEND

Protocol = Mapping[str, Any]


def protocol(
    encoders: Sequence[Encoder],
    model: str,
    *,
    samples: int,
    steps: int,
    guidance: float,
    seed: int,
) -> dict[str, Any]:
    """As it is stored beside scores, in JSON. samples: images of each condition; steps, guidance,
    seed: with which they are drawn on the model, of which the name alone is kept."""
    return {
        "model": PurePath(model).name,
        "samples": samples,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "encoders": [encoder.protocol() for encoder in encoders],
    }


def as_text(measured: Protocol) -> str:
    """Lines for people, with what the measures' names mean."""
    drawn = (
        f"{measured['samples']} images of each condition on {measured['model']}: "
        f"{measured['steps']} steps, guidance {measured['guidance']:g}, seeds from "
        f"{measured['seed']}"
    )
    return "\n".join([drawn, *map(_of_encoder, measured["encoders"]), LEGEND])


def difference(one: Protocol, other: Protocol) -> str:
    """The first thing in which two differ, as "samples 16 and 4"; empty where there is none."""
    for key in {**one, **other}:
        if one.get(key) != other.get(key):
            if key == "encoders":
                return "the encoders"
            return f"{key} {one.get(key)} and {other.get(key)}"
    return ""


def _of_encoder(found: Mapping[str, Any]) -> str:
    return (
        f"{found['encoder']}: {found['layer']}; resize {found['resize']} "
        f"{found['interpolation']}, crop {found['crop']}"
    )
