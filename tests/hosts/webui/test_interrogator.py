"""The words that the page takes from what a WebUI's interrogator says."""

from __future__ import annotations

import pytest

from unziplora.errors import UnZipLoRAError
from unziplora.hosts.webui.interrogator import medium_in, subject_in


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        ("a red fox sitting in the snow, by X, a watercolor painting", "fox"),
        ("a painting of a small cat with a hat, pixel art", "cat"),
        ("two dogs and a bird, a photo", "dogs"),
        ("a close up of a vase of flowers", "vase"),
        ("a teddy bear", "bear"),
    ],
)
def test_the_subject_is_the_noun_that_the_caption_begins_with(said: str, subject: str) -> None:
    assert subject_in(said) == subject


@pytest.mark.parametrize("said", ["", "a", ", by X", "2 3 4, art"])
def test_a_caption_without_a_noun_is_said_to_be_one(said: str) -> None:
    with pytest.raises(UnZipLoRAError, match="Type the subject yourself"):
        subject_in(said)


@pytest.mark.parametrize(
    "said",
    ["a fox, by X, a watercolor painting", "a fox, (by X:0.210), (a watercolor painting:0.259)"],
)
def test_the_medium_is_found_with_and_without_the_ranks_of_tags(said: str) -> None:
    assert medium_in(said, {"a watercolor painting", "pixel art"}) == "watercolor painting"
