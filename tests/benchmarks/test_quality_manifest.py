"""The quality benchmark's table by commands that anyone has: `batch` for each method, `score`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

import pytest

from benchmarks.quality.manifest import main as write_list
from benchmarks.quality.targets import FINAL
from mini_world.emoji import sets
from unziplora.cli import main
from unziplora.training.manifest import read_manifest

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")
METHODS = ("unziplora", "b-lora")
ROWS = [f"efficientnet {row}" for row in (
    "content.subject", "content.style", "style.style", "style.subject", "both.subject", "both.style"
)]  # fmt: skip


@needs_sets
def test_the_list_names_the_benchmarks_images(tmp_path: Path) -> None:
    assert write_list(["--out", str(tmp_path / "images"), "--images", "3"]) == 0
    jobs = read_manifest(tmp_path / "images" / "list.csv", {})
    assert [job.name for job in jobs] == [target.name for target in FINAL[:3]]
    assert [job.settings["style"] for job in jobs] == [target.style for target in FINAL[:3]]


@needs_sets
def test_the_list_of_the_images_that_passed_the_gates(tmp_path: Path) -> None:
    good = {"keeps_colours": True, "style_through_vae": 0.9, "own_subject": 0.9,
            "base_subject": 0.5, "base_style": 0.2}  # fmt: skip
    rooms = [{"target": t.name, **good, "base_style": 0.9 if n == 1 else 0.2}
             for n, t in enumerate(FINAL[:4])]  # fmt: skip
    (tmp_path / "gates.json").write_text(json.dumps({"gates": rooms}))
    given = ["--out", str(tmp_path / "images"), "--gates", str(tmp_path / "gates.json")]
    assert write_list(given) == 0
    jobs = read_manifest(tmp_path / "images" / "list.csv", {})
    assert [job.name for job in jobs] == [FINAL[n].name for n in (0, 2, 3)]


@pytest.mark.slow
@needs_sets
def test_batch_and_score_make_the_table_of_two_methods_over_two_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra scores is not installed")
    pytest.importorskip("diffusers", reason="the extra standalone is not installed")
    write_list(["--out", str(tmp_path / "images"), "--images", "2"])
    folders = [str(tmp_path / method) for method in METHODS]
    for method, folder in zip(METHODS, folders, strict=True):
        code = main(
            ["batch", str(tmp_path / "images" / "list.csv"), "--model", "mini", "--out", folder,
             "--method", method, "--steps", "2", "--rank", "2", "--resolution", "64",
             "--score", "--samples", "2"]
        )  # fmt: skip
        assert code == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert printed.count("mean of 2") == len(METHODS)
    assert printed.count("2 images of each condition on mini: 25 steps") == len(METHODS)

    table = tmp_path / "table.csv"
    assert main(["score", *folders, "--csv", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "over 2 images" in shown
    assert "b-lora - unziplora" in shown
    rows = list(csv.DictReader(table.open()))
    assert [row["measure"] for row in rows[::2]] == ROWS
    assert [row["measure"] for row in rows if row["leak"] == "yes"][::2] == [ROWS[1], ROWS[3]]
    for method, folder in zip(METHODS, folders, strict=True):
        lines = (Path(folder) / "batch.jsonl").read_text("utf-8").splitlines()
        stored = [json.loads(line)["scores"] for line in lines]
        for row in (row for row in rows if row["pair"] == method):
            by_image = [scores[row["measure"]] for scores in stored]
            assert float(row["mean"]) == pytest.approx(mean(by_image), abs=1e-6)
            assert row["n"] == "2"
