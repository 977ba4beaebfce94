"""The emoji world's styles, on a scene drawn here: no emoji set is needed."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.emoji.scene import EmojiScene, border
from mini_world.emoji.styles import (
    FAMILIES,
    HELD_OUT_STYLES,
    STYLES,
    TRAINING_STYLES,
    stylise,
)
from mini_world.scenes import SIDE


def scene() -> EmojiScene:
    """A red disc with a white eye on a pale ground."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    disc = np.hypot(y - 128, x - 128) < 80
    eye = np.hypot(y - 100, x - 100) < 18
    colour = np.broadcast_to(np.float32([0.9, 0.92, 0.85]), (SIDE, SIDE, 3)).copy()
    colour[disc] = (0.85, 0.15, 0.12)
    colour[eye] = 1.0
    return EmojiScene(colour, disc, np.zeros((SIDE, SIDE), bool))


def drawn(name: str, variant: int = 1, seed: int = 7) -> np.ndarray:
    return np.asarray(stylise(scene(), name, variant, np.random.default_rng(seed)))


def test_there_are_thirty_styles_to_train_on_and_ten_held_out() -> None:
    assert len(TRAINING_STYLES) >= 30
    assert len(HELD_OUT_STYLES) == 10
    assert not set(TRAINING_STYLES) & set(HELD_OUT_STYLES)


@pytest.mark.parametrize("name", HELD_OUT_STYLES)
def test_the_family_word_of_a_held_out_style_is_one_that_training_uses(name: str) -> None:
    assert STYLES[name].family in FAMILIES


@pytest.mark.parametrize("name", sorted(STYLES))
def test_a_style_draws_the_same_image_twice_and_another_for_another_seed_or_variant(
    name: str,
) -> None:
    pixels = drawn(name)
    assert pixels.shape == (128, 128, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 8
    assert np.array_equal(pixels, drawn(name))


@pytest.mark.parametrize("name", sorted(name for name in STYLES if STYLES[name].keeps_colour))
def test_a_style_that_promises_colours_leaves_a_red_thing_red(name: str) -> None:
    red, green, blue = drawn(name)[54:80, 54:80].reshape(-1, 3).mean(0)
    assert red > 1.25 * green
    assert red > 1.25 * blue


@pytest.mark.slow
def test_no_two_styles_draw_alike() -> None:
    names = sorted(STYLES)
    small = np.stack([drawn(n)[::4, ::4].astype(np.float32) for n in names]).reshape(len(names), -1)
    apart = np.abs(small[:, None] - small[None]).mean(-1)
    np.fill_diagonal(apart, 255)
    closest = np.unravel_index(apart.argmin(), apart.shape)
    assert apart.min() > 4, f"{names[closest[0]]} and {names[closest[1]]}"


def test_borders_follow_the_outline_and_the_colours_inside() -> None:
    edges = scene().edges(3)
    assert edges[128, 46:52].any()  # the disc's left rim
    assert edges[100, 80:86].any()  # the eye's
    assert not edges[160, 120:140].any()  # nothing happens there
    assert border(np.zeros((4, 4), bool)).sum() == 0
