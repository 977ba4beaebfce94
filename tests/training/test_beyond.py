"""What the paper does not have: each setting changes the run, and a run with it resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import unziplora
from tests.training.runs import begin, hashes
from tests.training.test_subject_mask import masked_image
from unziplora.training.events import StepDone

OPTIONS: dict[str, dict[str, Any]] = {
    "weighting": {"weighting": "style-friendly"},
    "weighting by branch": {"weighting_content": "x0", "weight_from": 0.3},
    "timesteps": {"timesteps": "stratified"},
    "lora_plus": {"lora_plus": 4.0},
    "average_last": {"average_last": 4},
    "mask_content": {"mask_content": "apart", "flip": True},
    "rank_mask": {"rank_mask": 1.0},
    "rank_by_group": {"rank_by_group": {"output_blocks.0.1": 4, "middle_block.1": 1}},
    "leak_penalty": {"leak_penalty": 1.0, "leak_every": 2},
    "reselect": {"reselect": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("option", list(OPTIONS))
def test_a_setting_changes_the_run_and_is_resumed_exactly(
    make_host: Any, tmp_path: Path, option: str
) -> None:
    image, flip = masked_image(tmp_path), OPTIONS[option].get("flip", False)
    list(begin(image, make_host(), tmp_path, name="plain", flip=flip))
    changed = resumed_as_whole(make_host, image, tmp_path, OPTIONS[option])
    assert changed != hashes(tmp_path, "plain")


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["selective", "checkpoint", "low", "lowest"])
def test_all_settings_together_are_resumed_exactly_in_every_memory_plan(
    make_host: Any, tmp_path: Path, memory: str
) -> None:
    together = {name: value for option in OPTIONS.values() for name, value in option.items()}
    del together["rank_by_group"]  # not beside a rank mask
    image = masked_image(tmp_path)
    resumed_as_whole(make_host, image, tmp_path, {**together, "memory": memory})


def resumed_as_whole(
    make_host: Any, image: Path, out: Path, options: dict[str, Any]
) -> tuple[str, str]:
    """The files of a run that was stopped and resumed, which are those of one that was not."""
    list(begin(image, make_host(), out, name="whole", **options))
    run = begin(image, make_host(), out, name="halved", **options)
    for event in run:
        if isinstance(event, StepDone) and event.step == 3:
            run.send("stop")
    list(unziplora.resume(run.folder.path, host=make_host()))
    assert hashes(out, "halved") == hashes(out, "whole")
    return hashes(out, "whole")
