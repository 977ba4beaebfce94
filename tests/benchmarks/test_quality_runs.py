"""What the benchmark trains and draws: merged files, and runs with the world's own mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.runs import SECONDS, Bench, Job
from benchmarks.quality.scores import TOGETHER, Scorer
from benchmarks.quality.targets import CHOOSING
from mini_world.emoji import sets
from mini_world.emoji.probes import judge
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.merge_methods import MERGE_METHODS
from unziplora.training.run_folder import run_path
from unziplora.unet.architectures import MINIATURE, family

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


@pytest.mark.slow
@needs_sets
def test_merged_files_draw_other_images_than_their_sum_and_are_scored_alike(tmp_path: Path) -> None:
    bench = Bench(Sampler(StandaloneHost.open(mini.MODEL, device="cpu"), steps=2), tmp_path)
    one, two = (
        Job("dreambooth", target, 0, {"lr": 1e-2, "steps": 4}) for target in (CHOOSING[2:4])
    )
    drawn = {how: bench.samples(one, "cross", two, how) for how in MERGE_METHODS}
    assert {images.shape for images in drawn.values()} == {(16, 128, 128, 3)}
    for how in ("np", "zip"):
        assert not np.array_equal(drawn[how], drawn["add"])
        scores = Scorer(judge()).score_merged(bench, one, two, how)
        assert set(scores) == set(TOGETHER)
        # kept apart from the plain sum's, and found again
        assert np.array_equal(bench.samples(one, "cross", two, how), drawn[how])
    assert np.array_equal(bench.samples(one, "cross", two), drawn["add"])


@pytest.mark.slow
@needs_sets
def test_a_lora_is_drawn_with_its_layers_in_some_groups_only(tmp_path: Path) -> None:
    bench = Bench(Sampler(StandaloneHost.open(mini.MODEL, device="cpu"), steps=2), tmp_path)
    job = Job("m1", CHOOSING[2], 0, {"lr": 1e-2, "steps": 4})
    every = tuple(family()[MINIATURE].groups)
    whole = bench.samples(job, "style")
    assert np.array_equal(bench.limited_samples(job, "style", every), whole)
    few = bench.limited_samples(job, "style", ["output_blocks.4.1"])
    assert not np.array_equal(few, whole)
    lifts = Scorer(judge()).score_limited(bench, job, "style", ["output_blocks.4.1"])
    assert set(lifts) == {"style.style lift", "style.subject lift", "style.obeyed lift"}


@pytest.mark.slow
@needs_sets
def test_a_masked_run_has_the_worlds_own_mask_and_is_timed(tmp_path: Path) -> None:
    bench = Bench(Sampler(StandaloneHost.open(mini.MODEL, device="cpu"), steps=1), tmp_path)
    settings = {"lr": 1e-2, "steps": 4}
    plain = Job("unziplora", CHOOSING[2], 0, settings)
    masked = Job("unziplora", CHOOSING[2], 0, {**settings, "mask_content": "apart"})
    one, other = (bench.pair(job)["content"].read_bytes() for job in (plain, masked))
    assert one != other
    kept = run_path(tmp_path / "pairs" / masked.key, "pair") / "mask.png"
    assert np.array_equal(np.asarray(Image.open(kept)), CHOOSING[2].mask())
    assert 0 < bench.seconds(masked)[SECONDS] < 1e3
    assert bench.seconds(Job("m1", CHOOSING[2], 0, settings)) == {}  # which was not trained
