"""What a user leaves open in the node is left open in the settings of the run."""

from __future__ import annotations

from typing import Any

import pytest

from unziplora.comfyui.fields import AT_THE_END, NEVER, settings_of
from unziplora.errors import InvalidInput

WORDS = {"subject": "cat", "style": "paper cut", "token": "sks", "name": ""}


def fields(**values: Any) -> dict[str, Any]:
    untouched = {"steps": 0, "rank": 0, "lr": 0.0, "resolution": 0, "seed": 0,
                 "preview_every": AT_THE_END, "more_settings": ""}  # fmt: skip
    return {**WORDS, **untouched, **values}


def test_an_untouched_node_trains_as_the_paper_does() -> None:
    settings = settings_of(fields())
    assert settings.resolve().steps == 600
    assert settings.resolve().rank == 64
    assert settings.resolve().lr == 5e-5
    assert settings.resolve().name == "cat-paper-cut"


def test_what_is_filled_in_is_what_is_trained() -> None:
    settings = settings_of(fields(steps=50, rank=8, lr=0.001, seed=3, name="mine", token="ohwx"))
    assert (settings.steps, settings.rank, settings.lr, settings.seed) == (50, 8, 0.001, 3)
    assert (settings.name, settings.trigger("content")) == ("mine", "ohwx cat")


def test_previews_are_drawn_at_the_end_or_in_between_or_never() -> None:
    assert settings_of(fields(preview_every=NEVER)).preview_every == 0
    assert settings_of(fields(preview_every=25)).preview_every == 25
    at_the_end = settings_of(fields(preview_every=AT_THE_END))
    assert at_the_end.preview_every >= 100_000  # no step in between, but not never


def test_any_other_setting_is_written_as_json() -> None:
    settings = settings_of(fields(more_settings='{"columns": 40, "flip": true}'))
    assert (settings.columns, settings.flip) == (40, True)


@pytest.mark.parametrize("text", ["columns: 40", "[1, 2]", '{"colums": 40}', "[" * 200_000])
def test_other_settings_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        settings_of(fields(more_settings=text))
