"""The benchmark's images of merged files: the same two LoRAs, put together in each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import parts
from benchmarks.quality.report import as_text
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.scores import TOGETHER, Scorer
from benchmarks.quality.targets import CHOOSING, Target
from mini_world.emoji import sets
from mini_world.emoji.probes import judge
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.merge_methods import MERGE_METHODS

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


class Told:
    """In the place of the workers: every image of a way scores what the way is worth."""

    def __init__(self, worth: Callable[[str, str, Target], float]) -> None:
        self._worth = worth

    def _scores(self, groups: Sequence[Sequence[Job]], how: str) -> list[list[dict[str, float]]]:
        return [
            [{**dict.fromkeys(TOGETHER, self._worth(job.method, how, job.target)),
              "second: both.style": 0.5, "content.subject": 9.0, "both.style lift": 9.0}
             for job in group]
            for group in groups
        ]  # fmt: skip

    def scored(self, groups: Sequence[Sequence[Job]]) -> list[list[dict[str, float]]]:
        return self._scores(groups, "add")

    def merged(self, groups: Sequence[Sequence[Job]], how: str) -> list[list[dict[str, float]]]:
        return self._scores(groups, how)


def test_each_way_of_merging_is_compared_with_unziploras_own_pairs() -> None:
    worth = {("unziplora", "add"): 0.4, ("dreambooth", "add"): 0.1, ("dreambooth", "np"): 0.3,
             ("dreambooth", "zip"): 0.5}  # fmt: skip

    def of(method: str, how: str, target: Target) -> float:
        return worth[method, how] + 0.01 * target.number

    work: Any = Told(of)
    result = parts.merge(work, CHOOSING[:3], [0, 1])
    assert set(result["table"]) == {f"{method}, {how}" for method, how in worth}
    assert {how for _, how in worth} == set(MERGE_METHODS)
    for (method, how), value in worth.items():
        if method == "dreambooth":
            mean, error = result["differences"][f"dreambooth, {how}"]["cross.style"]
            assert mean == pytest.approx(value - 0.4)
            assert error == pytest.approx(0, abs=1e-9)  # paired: what differs between images is out
    assert set(result["table"]["dreambooth, np"]) == {*TOGETHER, "second: both.style"}
    text = as_text("merge", result)
    assert "By second:" in text
    assert "| both together: subject |" in text
    assert "content LoRA" not in text


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
