"""The probes: what they say of drawings whose truth is known. They must be able to fail."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.probes import Judge
from mini_world.world import CORE_KINDS, CORE_STYLES, held_out_instance, portrait


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def drawn(kinds: list[str], style: str, numbers: list[int], seed: int = 0) -> np.ndarray:
    return np.stack([
        portrait(held_out_instance(kind, n), style, 1, seed + i).draw()
        for i, (kind, n) in enumerate(zip(kinds, numbers, strict=True))
    ])  # fmt: skip


def test_classes_of_held_out_individuals_are_named(judge: Judge) -> None:
    kinds = [kind for kind in CORE_KINDS for _ in range(3)]
    found = judge.kinds(drawn(kinds, "", list(range(30))))
    assert np.mean([a == b for a, b in zip(found, kinds, strict=True)]) > 0.9


def test_styles_are_named_whatever_they_show(judge: Judge) -> None:
    found = [judge.styles(drawn(CORE_KINDS, style, list(range(10)))) for style in CORE_STYLES]
    right = [
        name == style for names, style in zip(found, CORE_STYLES, strict=True) for name in names
    ]
    assert np.mean(right) > 0.9


def test_an_individual_is_nearer_to_itself_in_another_style_than_to_others(judge: Judge) -> None:
    numbers = list(range(12))
    one = judge.content(drawn(["cat"] * 12, "", numbers))
    other = judge.content(drawn(["cat"] * 12, "low poly", numbers, seed=100))
    alike = one @ other.T
    assert float((alike.argmax(1) == alike.diagonal().new_tensor(range(12))).float().mean()) > 0.5
    assert alike.diagonal().mean() > alike.mean() + 0.2


def test_a_held_out_style_is_nearer_to_itself_on_another_thing(judge: Judge) -> None:
    styles = ["knitted wool", "pointillism", "gold engraving", "thermal image", "ink wash"]
    one = judge.style(np.concatenate([drawn(["cat"], s, [1]) for s in styles]))
    other = judge.style(np.concatenate([drawn(["house"], s, [2], seed=9) for s in styles]))
    alike = one @ other.T
    assert alike.diagonal().mean() > alike.mean() + 0.3


def test_the_content_probe_cares_little_for_style_and_the_style_probe_little_for_content(
    judge: Judge,
) -> None:
    cat, house = held_out_instance("cat", 5), held_out_instance("house", 5)
    images = np.stack([
        portrait(cat, "", 1, 1).draw(), portrait(cat, "pixel art", 1, 2).draw(),
        portrait(house, "", 1, 3).draw(), portrait(house, "pixel art", 1, 4).draw(),
    ])  # fmt: skip
    content, style = judge.content(images), judge.style(images)
    assert float(content[0] @ content[1]) > float(content[0] @ content[2])
    assert float(style[1] @ style[3]) > float(style[1] @ style[0])
