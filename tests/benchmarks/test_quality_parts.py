"""What each part of the quality benchmark asks of the workers, and makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import parts
from benchmarks.quality.report import CHANGES, MEASURES, as_text
from benchmarks.quality.runs import SECONDS, Job
from benchmarks.quality.scores import TOGETHER
from benchmarks.quality.targets import CHOOSING, FINAL
from benchmarks.quality.variants import AS_CHOSEN, VARIANTS
from unziplora.lora.merge_methods import MERGE_METHODS
from unziplora.training.settings import Settings

Worth = Callable[[Job, str], float]


class FakeWorkers:
    """In the place of the workers: every measure of a training is what `worth` says, by both
    referees, and it is written down what was asked."""

    def __init__(self, worth: Worth) -> None:
        self._worth = worth
        self.asked: list[Job] = []

    def _scores(self, job: Job, how: str) -> dict[str, float]:
        self.asked.append(job)
        found = dict.fromkeys(MEASURES, self._worth(job, how))
        second = {f"second: {name}": value / 2 for name, value in found.items()}
        del second["second: style.obeyed"]
        lifts = {f"{name} lift": value for name, value in found.items()}
        return {**found, **second, **lifts, **dict.fromkeys(CHANGES, 0.1)}

    def scored(
        self, groups: Sequence[Sequence[Job]], *, cross: bool = True
    ) -> list[list[dict[str, float]]]:
        return self.merged(groups, "add")

    def merged(self, groups: Sequence[Sequence[Job]], how: str) -> list[list[dict[str, float]]]:
        return [[self._scores(job, how) for job in group] for group in groups]


def workers(worth: Worth) -> Any:
    return FakeWorkers(worth)


def test_each_way_of_merging_is_compared_with_unziploras_own_pairs() -> None:
    worth = {("unziplora", "add"): 0.4, ("dreambooth", "add"): 0.1, ("dreambooth", "np"): 0.3,
             ("dreambooth", "zip"): 0.5}  # fmt: skip
    work = workers(lambda job, how: worth[job.method, how] + 0.01 * job.target.number)
    result = parts.merge(work, CHOOSING[:3], [0, 1])
    assert set(result["table"]) == {f"{method}, {how}" for method, how in worth}
    assert {how for _, how in worth} == set(MERGE_METHODS)
    for (method, how), value in worth.items():
        if method == "dreambooth":
            mean, error = result["differences"][f"dreambooth, {how}"]["cross.style"]
            assert mean == pytest.approx(value - 0.4)
            assert error == pytest.approx(0, abs=1e-9)  # paired: what differs between images is out
    of_both = {*TOGETHER, *(f"second: {name}" for name in TOGETHER)}
    assert set(result["table"]["dreambooth, np"]) == of_both
    text = as_text("merge", result)
    assert "By second:" in text
    assert "| both together: subject |" in text
    assert "content LoRA" not in text


def test_a_free_methods_loras_are_looked_at_group_by_group() -> None:
    class Limited(FakeWorkers):
        def limited(
            self, group: Sequence[Job], role: str, layers: Mapping[str, Sequence[str]]
        ) -> dict[str, list[dict[str, float]]]:
            assert {job.method for job in group} == {"m1"}
            self.asked += group
            return {
                label: [{f"{role}.{what} lift": len(groups) / 10 for what in ("subject", "style")}
                        for _ in group]
                for label, groups in layers.items()
            }  # fmt: skip

    work: Any = Limited(lambda *_: 0.0)
    result = parts.where(work, CHOOSING[:2], [0, 1])
    for role in ("content", "style"):
        gained = {label: cells[f"{role}.style lift"][0] for label, cells in result[role].items()}
        assert gained["all groups"] == pytest.approx(1.1)  # eleven
        assert gained.pop("all groups") == pytest.approx(sum(gained.values()))
    text = as_text("where", result)
    assert "What the content LoRA gains" in text
    assert (
        "| output_blocks.3.1 | output_blocks.4.1 | output_blocks.5.1 | the other groups |" in text
    )


def test_rates_are_searched_outwards_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "CHOSEN", tmp_path / "chosen.json")
    (tmp_path / "chosen.json").write_text('{"b-lora": {"lr": 1.0, "steps": 300}}')
    best = {"m1": 8e-3, "m2": 1e-3}
    work = workers(lambda job, _: -abs(job.settings["lr"] - best[job.method]))
    result = parts.choose(work, CHOOSING[:2], [0], list(best))
    kept = json.loads((tmp_path / "chosen.json").read_text())
    assert kept == result["chosen"]
    assert {method: kept[method]["lr"] for method in kept} == {**best, "b-lora": 1.0}
    assert result["at_edge"] == []
    assert {job.settings["steps"] for job in work.asked} == {parts.STEPS}


def test_fewer_steps_take_their_rates_from_other_images_than_they_are_compared_on() -> None:
    work = workers(
        lambda job, _: job.settings["steps"] / 1000 - abs(job.settings.get("lr", 0.002) - 0.002)
    )
    result = parts.fewer(work, CHOOSING[:2], FINAL[:3], [0, 1])
    assert result["chosen"] == {
        "600 steps": {"steps": 600},  # at the model's own rate
        **{f"{steps} steps": {"steps": steps, "lr": 2e-3} for steps in parts.FEWER},
    }
    searching = [job for job in work.asked if job.target in CHOOSING]
    assert {job.target for job in work.asked} - set(CHOOSING) == set(FINAL[:3])
    assert {job.settings["lr"] for job in work.asked if job.settings["steps"] != 600 and
            job.target in FINAL} == {2e-3}  # fmt: skip
    assert len(searching) == 2 * 3 * len(parts.FEWER)
    for steps in parts.FEWER:
        mean, _ = result["differences"][f"{steps} steps"]["style.style"]
        assert mean == pytest.approx((steps - 600) / 1000)
    assert "150 steps" in as_text("fewer", result)


def test_variants_are_compared_with_the_defaults_by_both_referees_and_timed() -> None:
    names = ["B random", "stratified timesteps"]
    work = workers(lambda job, _: 0.5 if "init" in job.settings else 0.2)
    scores = work._scores
    seconds = {"init": 0.2, "timesteps": 0.1}

    def timed(job: Job, how: str) -> dict[str, float]:
        taken = [seconds[name] for name in job.settings if name in seconds]
        return scores(job, how) | ({SECONDS: taken[0]} if taken else {})

    work._scores = timed
    result = parts.decide(work, CHOOSING[:2], [0, 1], names)
    assert list(result["variants"]) == names
    assert result["variants"]["B random"]["both.style"] == pytest.approx((0.3, 0))
    assert result["variants"]["B random"]["second: both.style"] == pytest.approx((0.15, 0))
    assert result["seconds"] == {AS_CHOSEN: None, "B random": 0.2, "stratified timesteps": 0.1}
    text = as_text("decide", result)
    assert "By second:" in text
    assert "B random: 200" in text


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_settings_of_a_run_and_differs_from_the_defaults(name: str) -> None:
    chosen = Settings("cat", "ink", steps=300, **VARIANTS[name])
    assert (chosen == Settings("cat", "ink", steps=300)) == (name == AS_CHOSEN)
    chosen.resolve()
