"""Settings: the paper's numbers as defaults, and every bad value refused at the door."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unziplora.errors import InvalidInput
from unziplora.host import Defaults
from unziplora.method.methods import METHODS
from unziplora.training.model_traits import ModelTraits
from unziplora.training.settings import Settings

WORDS = {"subject": "cat", "style": "watercolor painting"}


def test_defaults_are_the_papers() -> None:
    settings = Settings(**WORDS).resolve()
    assert settings.steps == 600
    assert (settings.rank, settings.alpha) == (64, 64)
    assert settings.lr == 5e-5
    assert settings.merger_lr == 5e-3
    assert settings.columns == 30
    assert settings.recalibrate_every == 200
    assert settings.window == 5
    assert settings.orthogonality == 0.5
    assert Settings(**WORDS, method="b-lora").resolve().steps == 1000


def test_prompts_have_the_papers_form_and_can_each_be_edited() -> None:
    prompts = Settings(**WORDS).prompts
    assert prompts.combined == "a sks cat in watercolor painting style"
    assert prompts.content == "a sks cat"
    assert prompts.style == "an image in watercolor painting style"
    classed = Settings(**WORDS, style_prompt="class").prompts
    assert classed.style == "a cat in watercolor painting style"
    edited = Settings(**WORDS, prompt_style="watercolor (medium), no humans").prompts
    assert edited.style == "watercolor (medium), no humans"
    assert edited.content == "a sks cat"


def test_short_runs_recalibrate_too_and_move_their_mergers() -> None:
    short = Settings(**WORDS, steps=12).resolve()
    assert (short.recalibrate_every, short.window) == (4, 2)
    assert short.merger_lr == pytest.approx(5e-3 * 50)


def test_what_is_open_comes_from_the_model_and_what_is_chosen_stays() -> None:
    small = ModelTraits(Defaults(resolution=128, steps=120, lr=1e-3), narrowest=32)
    resolved = Settings(**WORDS).resolve(small)
    assert (resolved.resolution, resolved.steps, resolved.rank) == (128, 120, 8)
    assert resolved.lr == 1e-3
    assert Settings(**WORDS, method="b-lora").resolve(small).steps == 200
    chosen = Settings(**WORDS, resolution=256, steps=7, rank=3, lr=0.5).resolve(small)
    assert (chosen.resolution, chosen.steps, chosen.rank, chosen.lr) == (256, 7, 3, 0.5)
    assert resolved.resolve() == resolved


def test_settings_that_are_resolved_have_nothing_open() -> None:
    resolved = Settings(**WORDS).resolve()
    still_open = {f.name for f in fields(resolved) if getattr(resolved, f.name) is None}
    previews = {"preview_guidance", "preview_width", "preview_height"}  # the host's
    by_branch = {"weighting_content", "weighting_style"}  # as `weighting`
    leaks = {"leak_prompt_content", "leak_prompt_style"}  # made of the words
    off = {"min_snr_gamma", "rank_mask", "rank_by_group"}
    assert still_open == {"blocks", *off, *by_branch, *leaks, *previews}
    assert Settings.from_json(resolved.as_json()).resolve() == resolved


def test_the_name_comes_from_the_words() -> None:
    assert Settings(**WORDS).file_name == "cat-watercolor-painting"
    assert Settings("猫", "水彩 画").file_name == "猫-水彩-画"
    assert Settings(**WORDS, name="my pair").file_name == "my pair"


def test_learning_rate_schedules_begin_and_end_where_they_should() -> None:
    constant = Settings(**WORDS, steps=10, lr_warmup=4).resolve()
    assert [constant.lr_factor(s) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    linear = replace(constant, lr_schedule="linear", lr_warmup=0)
    assert linear.lr_factor(0) == 1
    assert linear.lr_factor(9) == pytest.approx(0.1)
    cosine = replace(linear, lr_schedule="cosine")
    assert cosine.lr_factor(5) == pytest.approx(0.5)


@given(
    steps=st.one_of(st.none(), st.integers(1, 5000)),
    lr=st.floats(1e-9, 1e3),
    method=st.sampled_from(sorted(METHODS)),
    blocks=st.one_of(
        st.none(),
        st.fixed_dictionaries({"content": st.just(["output_blocks.0.1"]), "style": st.just([])}),
    ),
)
def test_settings_survive_json(steps: Any, lr: float, method: str, blocks: Any) -> None:
    settings = Settings(**WORDS, steps=steps, lr=lr, method=method, blocks=blocks)
    assert Settings.from_json(settings.as_json()) == settings


BAD = [
    ({"subject": ""}, "subject is empty"),
    ({"subject": " \t"}, "subject is empty"),
    ({"style": "x" * 201}, "201 characters"),
    ({"style": "ink\nwash"}, "line break"),
    ({"subject": "<lora:x:1>"}, "call of a LoRA"),
    ({"token": ""}, "token is empty"),
    ({"prompt_content": ""}, "prompt content is empty"),
    ({"method": "ziplora"}, "no method 'ziplora'.*unziplora, m1, m2, dreambooth, b-lora"),
    ({"rank": 0}, "rank cannot be 0"),
    ({"rank": 4096}, "at most 1024"),
    ({"rank": 2.5}, "whole number"),
    ({"steps": 0}, "steps cannot be 0"),
    ({"steps": True}, "whole number"),
    ({"lr": 0}, "above 0"),
    ({"lr": float("nan")}, "learning rate cannot be nan"),
    ({"lr": "fast"}, "takes a number"),
    ({"columns": 101}, "at most 100"),
    ({"resolution": 10}, "at least 64"),
    ({"fold": "m"}, r"h\*m, h"),
    ({"memory": "tiny"}, "auto, full, selective, checkpoint"),
    ({"seed": -1}, "at least 0"),
    ({"blocks": ["output_blocks.0.1"]}, "block table is not readable"),
    ({"flip": "yes"}, "true or false"),
    ({"rank_by_group": {"output_blocks.0.1": 0}}, "whole number from 1 to 1024"),
    ({"rank_by_group": ["output_blocks.0.1"]}, "ranks by group are not readable"),
    ({"rank_by_group": {"middle_block.1": 4}, "rank_mask": 1}, "Choose one of them"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_value_is_refused_in_two_sentences(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        Settings(**{**WORDS, **change})
    assert str(refusal.value).count(". ") >= 1


names = st.sampled_from([field.name for field in fields(Settings)])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary()
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(), scalars))


@given(change=st.dictionaries(names, values, max_size=3))
def test_any_value_is_taken_or_refused_with_a_sentence(change: dict[str, Any]) -> None:
    try:
        settings = Settings(**{**WORDS, **change})
    except InvalidInput as refusal:
        assert str(refusal).endswith((".", "}."))  # noqa: PT017
    else:
        assert Settings.from_json(settings.as_json()) == settings


jsonable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner)),
    max_leaves=6,
)


@given(text=st.one_of(st.text(), st.builds(json.dumps, jsonable)))
def test_any_text_as_settings_is_taken_or_refused(text: str) -> None:
    try:
        Settings.from_json(text)
    except InvalidInput as refusal:
        assert ". " in str(refusal)  # noqa: PT017
