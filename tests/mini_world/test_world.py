"""The drawn world: the same numbers give the same image, and what is held out stays out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_world.captions import caption
from mini_world.scenes import CONTEXTS
from mini_world.world import (
    HELD_OUT_SEEDS,
    HELD_OUT_STYLES,
    KINDS,
    TRAINING_SEEDS,
    TRAINING_STYLES,
    held_out_instance,
    portrait,
    training_drawing,
)


def test_there_are_enough_classes_and_styles_and_some_styles_are_held_out() -> None:
    assert len(KINDS) >= 24
    assert len([*TRAINING_STYLES, *HELD_OUT_STYLES]) >= 20
    assert HELD_OUT_STYLES
    assert not set(HELD_OUT_STYLES) & set(TRAINING_STYLES)
    assert TRAINING_SEEDS <= HELD_OUT_SEEDS


@pytest.mark.parametrize("style", [*TRAINING_STYLES, *HELD_OUT_STYLES])
def test_every_style_draws_a_image_and_the_same_one_twice(style: str) -> None:
    image = portrait(held_out_instance(KINDS[len(style) % len(KINDS)], 3), style, 1, 7)
    pixels = image.draw()
    assert pixels.shape == (128, 128, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 5
    assert np.array_equal(pixels, image.draw())


@pytest.mark.parametrize("kind", KINDS)
def test_instances_of_a_class_differ(kind: str) -> None:
    one, other = (portrait(held_out_instance(kind, n), "", 0, 7).draw() for n in (1, 2))
    assert not np.array_equal(one, other)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_training_sees_no_held_out_style_and_its_captions_say_what_is_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = training_drawing(rng)
    assert image.style == "" or image.style in TRAINING_STYLES
    assert image.context is None or image.context in CONTEXTS
    for who, _ in image.actors:
        assert who.kind in KINDS
    text = caption(image, rng)
    assert text.startswith(("a ", "an "))
    if image.style:
        assert f"in {image.style} style" in text
    if not text.startswith("an image in"):
        assert all(who.kind in text for who, _ in image.actors)
    assert not any(style and f"in {style} style" in text for style in HELD_OUT_STYLES)
