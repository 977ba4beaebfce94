"""The emoji world: what is held out stays out, the same numbers give the same image."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.emoji import sets
from mini_world.emoji.captions import caption
from mini_world.emoji.things import (
    CLASSES,
    CORE_KINDS,
    HELD_OUT_VENDOR,
    VENDORS,
    Individual,
    colour_word,
    drawing,
    vendors_of,
)
from mini_world.emoji.world import (
    CORE_STYLES,
    HELD_OUT_STYLES,
    TRAINING_STYLES,
    held_out_individuals,
    portrait,
    training_artwork,
)

pytestmark = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


def test_every_class_was_drawn_by_five_vendors_that_training_sees() -> None:
    assert len(CLASSES) >= 60
    for kind in CLASSES:
        assert vendors_of(kind) == VENDORS
    assert HELD_OUT_VENDOR not in VENDORS


def test_thirty_individuals_are_held_out() -> None:
    held_out = held_out_individuals(sorted(CLASSES))
    assert len(set(held_out)) >= 30
    assert all(who.held_out for who in held_out)


@pytest.mark.slow
def test_training_sees_no_held_out_individual_and_no_held_out_style() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        artwork = training_artwork(rng)
        assert not artwork.who.held_out
        assert artwork.style in ("", *TRAINING_STYLES)
        text = caption(artwork, rng)
        assert not any(f"in {style} style" in text for style in HELD_OUT_STYLES)
        assert artwork.who.kind in text or text.startswith("an image in")


def test_the_core_is_a_part_of_the_world() -> None:
    assert set(CORE_KINDS) <= set(CLASSES)
    assert set(CORE_STYLES) <= set(TRAINING_STYLES)


def test_an_image_is_the_same_every_time_and_shows_another_hand_for_another_vendor() -> None:
    one, other = Individual("cat", "twemoji"), Individual("cat", "noto")
    assert np.array_equal(portrait(one, "", 1, 3).draw(), portrait(one, "", 1, 3).draw())
    assert not np.array_equal(portrait(one, "", 1, 3).draw(), portrait(other, "", 1, 3).draw())


def test_a_mask_has_the_individual_and_nothing_behind_it() -> None:
    cat, recoloured = (portrait(Individual("cat", "twemoji", hue), "", 5, 7) for hue in (0, 3))
    assert cat.mask().shape == cat.draw().shape[:2]
    assert (cat.mask().min(), cat.mask().max()) == (0, 255)
    assert np.array_equal(cat.mask(), recoloured.mask())
    changed = (cat.draw() != recoloured.draw()).any(-1)
    assert changed[cat.mask() == 255].mean() > 0.9
    assert changed[cat.mask() == 0].mean() < 0.1  # of soft borders, the fainter half


def test_hues_turn_and_their_words_follow() -> None:
    assert colour_word(Individual("strawberry", "twemoji")) == "red"
    assert colour_word(Individual("strawberry", "twemoji", 3)) == "green"
    turned = np.asarray(drawing(Individual("strawberry", "twemoji", 3)))
    assert np.array_equal(
        turned[..., 3], np.asarray(drawing(Individual("strawberry", "twemoji")))[..., 3]
    )


def test_a_pack_holds_the_same_drawings(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    truth = sets.glyph("noto", "penguin")
    folder = tmp_path / sets.PACK / "noto"  # type: ignore[operator]
    folder.mkdir(parents=True)
    Image.fromarray(truth).save(folder / "penguin.png")
    monkeypatch.setenv(sets.FOLDER_VARIABLE, str(tmp_path))
    sets.glyph.cache_clear()
    try:
        assert sets.missing() == ""
        assert sets.has("noto", "penguin")
        assert not sets.has("noto", "owl")
        assert np.array_equal(sets.glyph("noto", "penguin"), truth)
    finally:
        sets.glyph.cache_clear()


def test_a_missing_set_is_named_with_the_command_that_installs_it(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sets.FOLDER_VARIABLE, str(tmp_path))
    assert "python -m mini_world.emoji.install --install" in sets.missing()
