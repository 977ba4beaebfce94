"""From the fields of the node Unzip Image to the settings of a run."""

from __future__ import annotations

import json
from typing import Any

from unziplora.errors import InvalidInput
from unziplora.training.settings import MOST_STEPS, Settings

AT_THE_END, NEVER = 0, -1  # of the field preview_every


def settings_of(values: dict[str, Any]) -> Settings:
    """Of the node's fields: 0 and empty text stand for what the model or the method decides.
    Raises InvalidInput."""
    more = _more(values.pop("more_settings", ""))
    every = values.pop("preview_every")
    chosen = {name: value for name, value in values.items() if value not in (0, 0.0, "")}
    # at the end alone: no step of a run is this one
    drawn = {"preview_every": {NEVER: 0, AT_THE_END: MOST_STEPS}.get(every, every)}
    return Settings.from_values({"seed": 0, **chosen, **drawn, **more})


def _more(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The node's further settings are not readable JSON ({error}). Write them as in "
            '{"columns": 40, "flip": true}, or leave the field empty.'
        ) from error
    if not isinstance(said, dict):
        raise InvalidInput(
            "The node's further settings are not one JSON object. Write them as in "
            '{"columns": 40, "flip": true}, or leave the field empty.'
        )
    return said
