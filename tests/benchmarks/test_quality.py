"""The judge's bookkeeping: what is held out stays out, errors are over images, keys differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.quality.gates import capacity
from benchmarks.quality.parts import next_rate
from benchmarks.quality.report import (
    as_text,
    differences,
    disagreements,
    markdown,
    preferred,
    referees,
    table,
)
from benchmarks.quality.runs import Job, prompts_of
from benchmarks.quality.scores import ALIGNMENT, LEAKS, Scorer, alignment
from benchmarks.quality.targets import CHOOSING, FINAL, SAMPLES, WANTED
from mini_world.block_probe import Shift, active, standard_pairs
from mini_world.emoji import sets
from mini_world.emoji.probes import judge
from mini_world.emoji.styles import HELD_OUT_STYLES
from mini_world.emoji.things import CORE_KINDS

TARGETS = [*CHOOSING, *FINAL]
needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


def test_choosing_and_final_share_no_individual_and_no_style_that_training_saw() -> None:
    assert len(CHOOSING) > WANTED["choose"] >= 6
    assert len(FINAL) > WANTED["final"] >= 16
    assert not {t.who for t in CHOOSING} & {t.who for t in FINAL}
    assert len({(t.who, t.style) for t in TARGETS}) == len(TARGETS)
    assert len({t.name for t in TARGETS}) == len(TARGETS)
    for target in TARGETS:
        assert target.who.held_out
        assert target.style in HELD_OUT_STYLES
        assert target.kind in CORE_KINDS
        assert target.kind not in target.others


@needs_sets
def test_a_target_draws_the_same_image_every_time() -> None:
    assert np.array_equal(CHOOSING[0].image(), CHOOSING[0].image())


@pytest.mark.parametrize("condition", ["content", "style", "both", "cross"])
def test_sixteen_prompts_a_condition_and_each_names_what_it_should(condition: str) -> None:
    target, other = CHOOSING[0], CHOOSING[1]
    prompts = prompts_of(condition, target, other)
    assert len(prompts) == SAMPLES
    for prompt in prompts:
        assert ("sks" in prompt) == (condition != "style")
        assert (f"in {other.style} style" in prompt) == (condition != "content")


def test_a_job_is_known_by_all_that_makes_it() -> None:
    keys = {
        Job(method, target, seed, settings).key
        for method in ("unziplora", "m1")
        for target in CHOOSING[:2]
        for seed in (0, 1)
        for settings in ({"lr": 1e-3}, {"lr": 1e-3, "steps": 150})
    }
    assert len(keys) == 16
    one = Job("m1", CHOOSING[0], 0, {"lr": 1e-3, "steps": 1})
    assert one.key == Job("m1", CHOOSING[0], 0, {"steps": 1, "lr": 1e-3}).key


@pytest.mark.slow
@needs_sets
@pytest.mark.parametrize("number", [0, 3])
def test_the_worlds_own_drawings_score_high_where_they_should_and_do_not_leak(number: int) -> None:
    scores = Scorer(judge()).truth(CHOOSING[number], CHOOSING[0 if number else 1])
    for name in ("content.subject", "style.style", "both.style"):
        assert scores[name] > 0.8
    assert scores["style.subject"] < 0.2


def measures(value: float) -> dict[str, float]:
    names = ("content.subject", "style.style", "content.style", "style.subject", "style.obeyed",
             "both.subject", "both.style", "cross.subject", "cross.style")  # fmt: skip
    return dict.fromkeys(names, value) | {f"{name} lift": value for name in names}


def test_seeds_of_one_image_are_averaged_before_the_error_is_taken() -> None:
    # two images; first seed's scores, then the second's
    found = [measures(v) for v in (0.0, 1.0, 0.2, 1.2)]
    mean, error = table({"m": found}, images=2)["m"]["content.subject"]
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(np.std([0.1, 1.1], ddof=1) / math.sqrt(2))


def test_differences_are_paired() -> None:
    ours, theirs = [measures(v) for v in (0.1, 0.9)], [measures(v) for v in (0.2, 1.0)]
    mean, error = differences({"a": ours, "b": theirs}, "a", images=2)["b"]["both.style"]
    assert mean == pytest.approx(0.1)
    assert error == pytest.approx(0, abs=1e-9)


def test_a_later_method_is_preferred_where_it_scores_higher() -> None:
    earlier, later = [measures(v) for v in (0.1, 0.5)], [measures(v) for v in (0.2, 0.4)]
    later[0]["style.style"] = 0.0
    assert preferred({"m1": later, "dreambooth": earlier}) == {
        "m1 over dreambooth": {"subject": 0.5, "style": 0.0, "combined": 0.5}
    }


def test_rates_are_chosen_by_alignment_and_leaks_count_for_nothing() -> None:
    clean, leaking, aligned = measures(0.5), measures(0.5), measures(0.5)
    for name in LEAKS:
        leaking[f"{name} lift"] += 0.2
    aligned[f"{ALIGNMENT[0]} lift"] += 0.2
    assert alignment(leaking) == alignment(clean)
    assert alignment(aligned) > alignment(clean)


def test_a_best_rate_at_the_edge_widens_the_grid_and_one_inside_does_not() -> None:
    def grid(*values: float) -> list[dict[str, Any]]:
        return [
            {"method": "m1", "lr": lr, "alignment": a}
            for lr, a in zip((1e-3, 2e-3, 4e-3), values, strict=True)
        ]

    assert next_rate(grid(0.1, 0.2, 0.3), "m1") == [8e-3]
    assert next_rate(grid(0.3, 0.2, 0.1), "m1") == [5e-4]
    assert next_rate(grid(0.1, 0.3, 0.2), "m1") == []


def with_second_referee(own: float, other: float) -> dict[str, float]:
    return measures(own) | {f"second: {name}": other for name in ("content.subject", "style.style")}


def test_referees_that_rank_two_methods_the_other_way_round_are_named() -> None:
    ours = [with_second_referee(0.5 + e, 0.5 + e) for e in (0.0, 0.01, 0.02)]
    agreed = [with_second_referee(0.7 + e, 0.6) for e in (0.0, 0.01, 0.02)]
    turned = [with_second_referee(0.7 + e, 0.3) for e in (0.0, 0.01, 0.02)]
    assert disagreements({"unziplora": ours, "m1": agreed}, "unziplora", 3) == []
    said = disagreements({"unziplora": ours, "m1": turned}, "unziplora", 3)
    assert len(said) == 2
    assert "m1 less unziplora is +0.20" in said[0]
    assert "by second" in said[0]


def test_each_referee_has_its_own_table() -> None:
    cells = table({"m": [with_second_referee(0.25, 0.5)] * 4}, images=2)
    assert referees(cells) == ["second: "]
    assert "0.50 ± 0.00" in markdown(cells, ["second: content.subject"])


def test_a_table_has_a_row_for_each_measure() -> None:
    text = markdown(table({"m": [measures(0.25)] * 4}, images=2), ["content.subject"])
    assert text.splitlines()[-1].startswith("| subject alignment")
    assert "0.25 ± 0.00" in text


def test_the_final_report_holds_every_table_the_capacity_and_the_sizes_of_the_changes() -> None:
    sizes = {"content.dW/W": 0.31, "style.dW/W": 0.07}
    found = [with_second_referee(0.5, 0.4) | sizes] * 3
    by_method = {"unziplora": found, "dreambooth": found}
    result = {
        "table": table(by_method, 3),
        "bounds": table({"a copy of the image": [measures(0.9)] * 3}, 3),
        "differences": differences(by_method, "unziplora", 3),
        "preferred": preferred(by_method),
        "capacity": capacity(found[0], measures(0.9)),
        "disagreements": disagreements(by_method, "unziplora", 3),
    }
    text = as_text("final", result)
    assert "Capacity FAILED" in text
    assert "| dW/W of the content LoRA | 0.31 ± 0.00 | 0.31 ± 0.00 |" in text
    assert "a copy of the image" in text
    assert "Cosine with the truth, by second" in text
    assert "Where the referees disagree: nowhere beyond two errors." in text


def test_the_grid_is_printed_with_leaks_and_a_best_rate_at_its_edge_is_named() -> None:
    row = {"method": "m1", "lr": 1e-3, "alignment": 0.2, "scores": measures(0.1)}
    row["scores"] |= {"content.dW/W": 0.3, "style.dW/W": 0.2}
    text = as_text("choose", {"grid": [row], "chosen": {}, "at_edge": ["m1"]})
    assert "alignment +0.200" in text
    assert "leaks (reported only) +0.10, +0.10" in text
    assert "m1: the best rate lies at the grid's edge" in text


def test_a_group_is_active_only_beyond_its_error() -> None:
    found = {
        "quiet": Shift(0.02, 0.01, 0.05, 0.02),
        "noisy": Shift(0.3, 0.2, 0.0, 0.1),
        "content": Shift(0.4, 0.05, 0.0, 0.1),
        "style": Shift(0.0, 0.1, 0.5, 0.05),
    }
    assert active(found) == ["content", "style"]


def test_the_block_probe_asks_about_another_class_and_another_style() -> None:
    for first, second in standard_pairs(30):
        kind, style = first.split(" in ", 1)
        other_kind, other_style = second.split(" in ", 1)
        assert kind != other_kind
        assert style != other_style
