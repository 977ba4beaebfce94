"""What the quality benchmark measured once is not measured again, on this machine or another."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.quality import embeddings, workers
from benchmarks.quality.__main__ import MEASURED, _check_rates, _images, _workers, arguments
from benchmarks.quality.gates import Headroom
from benchmarks.quality.measured import Measured, fingerprint, key_of
from benchmarks.quality.runs import Bench, Job
from benchmarks.quality.targets import CHOOSING
from mini_world.emoji import sets
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.method.methods import INSPIRATION_TREE

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")
JOBS = [Job("m1", target, 0, {"lr": 1e-3}) for target in CHOOSING[:3]]


class Counting:
    """In the place of the pool: what was asked of it, answered at once."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.judged: list[str] = []

    def map(self, work: object, given: list[object]) -> list[object]:
        if work is workers._train:
            self.trained += [job.key for job in given]  # type: ignore[attr-defined]
            return [None for _ in given]
        self.judged += [key_of(*pair) for pair in given]  # type: ignore[misc]
        return [{"style.style": 0.1 * n} for n, _ in enumerate(given)]


def with_file(path: Path) -> tuple[workers.Workers, Counting]:
    work, pool = workers.Workers(1, mini.MODEL, path.parent, path), Counting()
    work._pool.shutdown()
    work._pool = pool  # type: ignore[assignment]
    return work, pool


def test_a_second_sitting_trains_and_judges_only_what_is_new(tmp_path: Path) -> None:
    first, pool = with_file(tmp_path / "measured.jsonl")
    found = first.scored([JOBS])
    assert len(pool.trained) == len(pool.judged) == 3

    second, pool = with_file(tmp_path / "measured.jsonl")
    assert second.scored([JOBS]) == found
    assert pool.trained == pool.judged == []

    # alone, it is another question than crossed with another's style
    second.scored([JOBS[:1]], cross=False)
    assert pool.judged == [JOBS[0].key]


def test_another_model_has_another_cache(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(mini.MODEL.read_bytes()[:-1] + b"x")
    pools = [workers.Workers(1, model, tmp_path) for model in (mini.MODEL, mini.MODEL, other)]
    for pool in pools:
        pool.close()
    first, again, another = (pool.cache for pool in pools)
    assert first == again != another
    assert first.parent == another.parent == tmp_path


def test_variants_may_go_on_the_final_images_and_rates_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def images(*given: str) -> str:
        monkeypatch.setattr("sys.argv", ["quality", *given])
        return _images(arguments())

    assert images("--part", "decide") == images("--part", "choose") == "choose"
    assert images("--part", "decide", "--images", "final") == images("--part", "final") == "final"
    assert images("--quick") == "choose"
    with pytest.raises(SystemExit):
        images("--part", "choose", "--images", "final")


@pytest.mark.parametrize(
    "given",
    [
        ["--part", "choose", "--variants", "fold h"],
        ["--quick", "--variants", "fold h"],
        ["--part", "decide", "--methods", "m1"],
        ["--part", "merge", "--out", "sheets"],
        ["--quick", "--out", "sheets"],
    ],
)
def test_what_a_part_does_not_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["quality", *given])
    with pytest.raises(SystemExit):
        arguments()


def test_what_another_model_or_other_referees_said_does_not_count(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(mini.MODEL.read_bytes()[:-1] + b"x")
    marks = [fingerprint(mini.MODEL, []), fingerprint(mini.MODEL, ["two"]), fingerprint(other, [])]
    assert len(set(marks)) == 3
    path = tmp_path / "measured.jsonl"
    for n, mark in enumerate(marks):
        Measured(path, mark).add("one", {"style.style": n / 10})
    assert [Measured(path, mark).get("one") for mark in marks] == [
        {"style.style": n / 10} for n in range(3)
    ]


def test_a_line_that_was_cut_off_costs_itself_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    for name in ("one", "two"):
        Measured(path, "mark").add(name, {"a": 1.0})
    path.write_bytes(path.read_bytes()[:-9])
    assert Measured(path, "mark").get("two") is None
    Measured(path, "mark").add("three", {"a": 3.0})
    found = Measured(path, "mark")
    assert (found.get("one"), found.get("three")) == ({"a": 1.0}, {"a": 3.0})


def test_quick_knows_nothing_of_before() -> None:
    args = Namespace(quick=True, workers=1, model=mini.MODEL, cache=None, measured=MEASURED)
    with contextlib.ExitStack() as on:
        assert _workers(args, on)._measured.get(f"gates {CHOOSING[0].name}") is None


def test_a_table_without_chosen_rates_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(SystemExit, match=r"chosen for unheard-of\. Run --part choose"):
        _check_rates("final", ["unziplora", "unheard-of"])
    _check_rates("choose", ["unheard-of"])


def test_gates_are_read_back_as_they_were(tmp_path: Path) -> None:
    room = Headroom("c", True, 0.9, 0.8, 0.7, 0.4)
    numbers = {"keeps_colours": 1.0, "style_through_vae": 0.9, "own_subject": 0.8,
               "base_subject": 0.7, "base_style": 0.4}  # fmt: skip
    assert Headroom.of("c", numbers) == room


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    measured = Measured(None, "mark")
    measured.add("one", {"a": 1.0})
    assert measured.get("one") == pytest.approx({"a": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_sets
def test_embeddings_are_trained_and_drawn_in_their_words_places(tmp_path: Path) -> None:
    bench = Bench(Sampler(StandaloneHost.open(mini.MODEL, device="cpu"), steps=2), tmp_path)
    job = Job(INSPIRATION_TREE, CHOOSING[1], 0, {"lr": 0.05, "steps": 3, "seeds": 1})
    other = Job(INSPIRATION_TREE, CHOOSING[2], 0, {"lr": 0.05, "steps": 3, "seeds": 1})
    drawn = {name: bench.samples(job, name) for name in ("content", "style", "both")}
    drawn["cross"] = bench.samples(job, "cross", other)
    assert {images.shape for images in drawn.values()} == {(16, 128, 128, 3)}
    assert not (drawn["both"] == drawn["cross"]).all()
    assert "sks" in " ".join(embeddings.prompts_of("both", job.target))
    # none of it is left in the host's words
    plain = bench.base_samples("style", job.target, job.target)
    assert not (plain == drawn["style"]).all()
    assert bench.sampler.host._embeddings.keys().isdisjoint(
        embeddings.prompts_of("both", job.target)
    )
