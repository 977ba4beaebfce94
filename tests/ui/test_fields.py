"""What the Train tab's fields give as settings: numbers, presets, and the blocks' checklist."""

from __future__ import annotations

from typing import Any

import pytest

from unziplora.errors import InvalidInput
from unziplora.method.methods import table_for
from unziplora.training.settings import Settings
from unziplora.ui import presets
from unziplora.ui.advanced_fields import NO_PAIR, read_fields, read_settings, values_of
from unziplora.ui.block_fields import choices_of, defaults_of, read_blocks
from unziplora.ui.merge_part import MergeChoice, MergePart
from unziplora.ziplora.learn import ZipSettings

VALUES: dict[str, Any] = {"own_blocks": False, "blocks_content": [], "blocks_style": []}
DEFAULTS = {"steps": 600, "lr": 5e-5, "rank": 64}


def test_empty_fields_leave_the_settings_to_their_defaults() -> None:
    typed = {"steps": " ", "lr": "", "rank": "8", "token": "sks", "alpha": None}
    assert read_fields(typed) == {"rank": 8, "token": "sks"}


@pytest.mark.parametrize(
    ("field", "text", "problem"),
    [
        ("steps", "many", "Training steps cannot be 'many'. Type a whole number"),
        ("steps", "1.5", "Training steps cannot be '1.5'. Type a whole number"),
        ("lr", "fast", "Learning rate cannot be 'fast'. Type a number, for example 5e-5"),
        ("rank", "x", r"Network rank \(dim\) cannot be 'x'"),
    ],
)
def test_what_is_no_number_is_named_by_its_label(field: str, text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_fields({field: text})


def test_a_merge_is_told_what_was_typed_and_the_defaults_of_the_rest() -> None:
    assert MergePart.read("", "add", "", "", "", "") == MergeChoice("", "add", 1.0, ZipSettings())
    assert MergePart.read(" both ", "zip", "0.5", "40", "0.1", "7") == MergeChoice(
        "both", "zip", 0.5, ZipSettings(steps=40, overlap=0.1, seed=7)
    )


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (("weak", "", "", ""), r"Strength \(mu\) cannot be 'weak'. Type a number"),
        (("", "1.5", "", ""), "Steps cannot be '1.5'. Type a whole number"),
        (("", "0", "", ""), "ZipLoRA cannot learn for 0 steps"),
        (("", "", "nan", ""), "weight of the overlap is nan"),
        (("", "", "", "-1"), "seed is not from 0"),
    ],
)
def test_a_merges_number_that_is_none_is_named(typed: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        MergePart.read("", "zip", *typed)


def test_the_chosen_blocks_become_the_runs_table() -> None:
    values = {
        "own_blocks": True,
        "blocks_content": ["decoder, coarse 2 (output_blocks.1.1)"],
        "blocks_style": [],
        "overwrite": True,
    }
    settings, begins = read_settings("cat", "ink", "", values)
    assert begins == {"overwrite": True, "start_from": None}
    assert settings["blocks"] == {"content": ["output_blocks.1.1"], "style": []}
    assert Settings(**settings).blocks == {"content": ("output_blocks.1.1",), "style": ()}
    unchosen, _ = read_settings("cat", "ink", "", {**values, "own_blocks": False})
    assert "blocks" not in unchosen


@pytest.mark.parametrize("architecture", ["sdxl", "sdxl-like", "mini", "vega", "koala-700m"])
def test_the_ticked_blocks_are_the_models_own_table(architecture: str) -> None:
    ticked = {branch: defaults_of(architecture, branch) for branch in ("content", "style")}
    assert all(set(choices) <= set(choices_of(architecture)) for choices in ticked.values())
    blocks = read_blocks(True, ticked["content"], ticked["style"])
    assert blocks is not None
    table = table_for(architecture)
    assert {branch: tuple(groups) for branch, groups in blocks.items()} == dict(table)


@pytest.mark.parametrize(
    ("own", "fast"),
    [
        ((600, 5e-5), ("150", "1e-4")),
        ((300, 1e-3), ("150", "0.002")),
        ((120, 1e-3), ("120", "0.001")),
    ],
)
def test_a_fast_run_is_the_benchmarks_150_steps_at_twice_the_models_rate(
    own: tuple[int, float], fast: tuple[str, str]
) -> None:
    defaults = {**DEFAULTS, "steps": own[0], "lr": own[1]}
    values = presets.built_in(presets.FAST, defaults, lambda: "low")
    assert values == {"steps": fast[0], "lr": fast[1], "rank": "", "memory": "auto"}


def test_low_memory_takes_the_smallest_plan_and_never_a_larger_rank() -> None:
    values = presets.built_in(presets.LOW_MEMORY, DEFAULTS, lambda: "lowest")
    assert values == {"steps": "", "lr": "", "rank": "16", "memory": "lowest"}
    small = presets.built_in(presets.LOW_MEMORY, {**DEFAULTS, "rank": 4}, lambda: "low")
    assert small["rank"] == "4"


def test_the_presets_line_has_the_models_numbers() -> None:
    line = presets.describe({"steps": 300, "lr": 1e-3, "rank": 16})
    assert "Default: 300 steps, rank 16, learning rate 0.001" in line
    assert "Fast: 150 steps, learning rate 0.002" in line


@pytest.mark.parametrize(("chosen", "pair"), [("fox", "fox"), (NO_PAIR, None), ("", None)])
def test_a_run_begins_with_the_chosen_pair(chosen: str, pair: str | None) -> None:
    _, begins = read_settings("cat", "ink", "", {**VALUES, "start_from": chosen})
    assert begins == {"overwrite": False, "start_from": pair}


def test_a_run_that_is_taken_out_of_the_queue_stands_in_the_fields_as_it_was() -> None:
    chosen = Settings(
        "cat", "ink", token="ohwx", method="m1", memory="low", steps=300, lr=5e-5, rank=8,
        alpha=4.0, lr_warmup=10, lr_schedule="cosine", resolution=512, seed=7, preview_every=50,
        preview_snapshots=True, flip=True, snapshot_every=100, prompt_style="an ink image",
        prediction_type="v_prediction",
    )  # fmt: skip
    settings, _ = read_settings("cat", "ink", "", {**VALUES, **values_of(chosen)})
    assert Settings(**settings) == chosen
    settings, _ = read_settings("cat", "ink", "", {**VALUES, **values_of(Settings("cat", "ink"))})
    assert Settings(**settings) == Settings("cat", "ink")
