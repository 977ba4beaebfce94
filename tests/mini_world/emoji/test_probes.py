"""The emoji world's questions to its judges, and how their answers are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.targets import CHOOSING, FINAL
from mini_world.emoji import sets
from mini_world.emoji.probes import (
    JUDGED_STYLES,
    _views,
    draw,
    fluent_questions,
    individual_questions,
    individuals,
    share_right,
    style_questions,
)
from mini_world.emoji.styles import HELD_OUT_STYLES
from mini_world.emoji.things import Individual
from mini_world.probes import VARIANTS, VIEWS, content_batch, style_batch
from unziplora import mini
from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.checkpoints.identify import identify

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


@needs_sets
def test_questions_are_about_held_out_individuals_and_the_first_answer_is_right() -> None:
    rng = np.random.default_rng(2)
    for asked, answers in individual_questions(rng, [""], 5):
        assert asked.who.held_out
        assert asked.who == answers[0].who
        assert asked.who not in [answer.who for answer in answers[1:]]
    for asked, answers in style_questions(rng, HELD_OUT_STYLES, 5):
        assert asked.style == answers[0].style
        assert asked.style not in [answer.style for answer in answers[1:]]


@needs_sets
def test_fluents_own_three_styles_show_one_individual() -> None:
    rng = np.random.default_rng(4)
    for vendor in ("fluent-emoji", "fluent-emoji-high-contrast"):
        asked, answers = fluent_questions(rng, vendor, 1)[0]
        assert asked.who.kind == answers[0].who.kind
        assert asked.who.vendor == vendor
        assert {answer.who.vendor for answer in answers} == {"fluent-emoji-flat"}
        assert not np.array_equal(asked.draw(), answers[0].draw())


@pytest.mark.slow
@needs_sets
def test_a_judge_that_sees_nothing_is_never_right_and_one_that_sees_colours_often() -> None:
    questions = style_questions(np.random.default_rng(3), HELD_OUT_STYLES[:4], 6)

    def blind(images: np.ndarray) -> torch.Tensor:
        return torch.ones(len(images), 1)

    def colours(images: np.ndarray) -> torch.Tensor:
        counts = [np.histogramdd(i.reshape(-1, 3), (6, 6, 6), [(0, 256)] * 3)[0] for i in images]
        vectors = torch.from_numpy(np.stack(counts)).flatten(1)
        return vectors / vectors.norm(dim=1, keepdim=True)

    assert share_right(blind, questions) == 0
    assert share_right(colours, questions, np.zeros_like) == 0
    assert share_right(colours, questions) > 0.4


def chosen_of(count: int) -> list[Individual]:
    return individuals(np.random.default_rng(23), count)


@pytest.mark.slow
@needs_sets
def test_probe_images_are_of_training_individuals_with_their_truth(tmp_path: Path) -> None:
    vae = open_checkpoint(identify(mini.MODEL)).vae(torch.device("cpu"))
    vae.save_pretrained(tmp_path / "vae")
    draw(tmp_path, count=2)
    known = json.loads((tmp_path / "probes.json").read_text())
    pixels = np.load(tmp_path / "probes.npy")
    assert len(pixels) == len(known) == 2 * VIEWS
    assert [k["instance"] for k in known] == [0] * VIEWS + [1] * VIEWS
    chosen = chosen_of(40)
    assert len(set(chosen)) == 40
    assert not any(who.held_out for who in chosen)
    # every other image went through the VAE, and shows the same
    for number in range(2):
        views = _views(chosen_of(2)[number], np.random.default_rng((23, number)))
        drawn = np.stack([view.draw() for view in views]).astype(float)
        kept = pixels[number * VIEWS :][:VIEWS].astype(float)
        off = np.abs(kept[:, None] - drawn[None]).mean((2, 3, 4))
        assert (off.diagonal()[1::2] == 0).all()
        assert (off.diagonal()[::2] > 0.5).all()
        assert (off.argmin(1) == np.arange(VIEWS)).all()


def test_the_judges_know_the_held_out_styles_but_not_the_variants_that_targets_show() -> None:
    assert set(HELD_OUT_STYLES) < set(JUDGED_STYLES)
    assert min(target.variant for target in (*CHOOSING, *FINAL)) >= VARIANTS


def test_batches_hold_four_images_of_one_individual_or_one_look() -> None:
    rng = np.random.default_rng(1)
    facts = {
        "kind": np.repeat(np.arange(30) % 6, VIEWS),
        "instance": np.repeat(np.arange(30), VIEWS),
        "style": rng.integers(0, 5, 30 * VIEWS),
        "variant": rng.integers(0, 3, 30 * VIEWS),
    }
    whos = facts["instance"][content_batch(rng, facts)].reshape(24, 4)
    assert (whos == whos[:, :1]).all()
    looks = (facts["style"] * 10 + facts["variant"])[style_batch(rng, facts)].reshape(24, 4)
    assert (looks == looks[:, :1]).all()
