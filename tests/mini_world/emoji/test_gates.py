"""The gates of the emoji world's miniature: what they count, where the answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.emoji.gates import class_share, style_share, word_effect
from mini_world.emoji.things import CORE_KINDS
from mini_world.emoji.train import first_model
from mini_world.emoji.world import CORE_STYLES


class ReadsPrompts:
    """Stands for a model and its judge: the images are the prompts' numbers."""

    def __init__(self, wrong_kind: str = "", wrong_style: str = "") -> None:
        self.prompts: list[str] = []
        self.wrong_kind, self.wrong_style = wrong_kind, wrong_style

    def draw(self, prompts: list[str], seed: int) -> np.ndarray:
        self.prompts = prompts
        return np.arange(len(prompts))

    def kinds(self, images: np.ndarray, among: list[str]) -> list[str]:
        assert among == CORE_KINDS
        kinds = [self.prompts[i].split(" ")[1] for i in images]
        return ["another" if kind == self.wrong_kind else kind for kind in kinds]

    def styles(self, images: np.ndarray) -> list[str]:
        styles = [self.prompts[i].split(" in ")[1].removesuffix(" style") for i in images]
        return ["another" if style == self.wrong_style else style for style in styles]


def test_a_model_that_draws_what_is_asked_passes_and_each_miss_counts_once() -> None:
    good = ReadsPrompts()
    assert class_share(good, good.draw) == 1  # type: ignore[arg-type]
    assert style_share(good, good.draw) == 1  # type: ignore[arg-type]
    poor = ReadsPrompts(CORE_KINDS[0], CORE_STYLES[0])
    assert np.isclose(class_share(poor, poor.draw), 1 - 1 / len(CORE_KINDS))  # type: ignore[arg-type]
    assert np.isclose(style_share(poor, poor.draw), 1 - 1 / len(CORE_STYLES))  # type: ignore[arg-type]


@pytest.mark.slow
def test_words_that_mean_nothing_change_less_than_words_of_styles() -> None:
    model = first_model().eval()
    assert word_effect(model, new=[""]) == 0
    assert word_effect(model, new=["zwx"]) < 0.7 * word_effect(model, new=["linocut print"])
