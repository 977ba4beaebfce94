"""Scores side by side: of pairs of one image, and of whole batches."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from PIL import Image

from unziplora.cli import main
from unziplora.errors import InvalidInput
from unziplora.scores.measure import Mean
from unziplora.scores.plot import plot
from unziplora.scores.report import as_csv, labels, means, read_batches, table

FOUND = {
    "ours": {"dino content.subject": [0.5, 0.7], "csd content.style": [0.2, 0.2]},
    "theirs": {"dino content.subject": [0.4, 0.5], "csd content.style": [0.3, 0.3]},
}


def batch(folder: Path, scores: dict[str, float], file: str = "batch.jsonl") -> Path:
    """A folder with what `unziplora batch --score` leaves, and lines that say nothing."""
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"name": name, "scores": {"dino content.subject": value, "other": 0.0}})
        for name, value in scores.items()
    ]
    lines += [json.dumps({"name": "bad", "scores": {}}), '{"name": "cut o']
    with (folder / file).open("a") as text:
        text.write("\n".join(lines) + "\n")
    return folder


def test_differences_are_paired_and_leaks_are_named() -> None:
    header, subject, leak = table(FOUND)
    assert header == ["measure", "ours", "theirs", "theirs - ours"]
    assert subject == ["dino content.subject", "0.600 ± 0.100", "0.450 ± 0.050", "-0.150 ± 0.050"]
    assert leak[0] == "csd content.style (leak)"
    assert leak[3] == "0.100 ± 0.000"


def test_the_csv_is_read_by_programs() -> None:
    quoted = {'a, "b"': FOUND["ours"], "c": FOUND["theirs"]}
    rows = list(csv.DictReader(io.StringIO(as_csv(quoted))))
    assert [row["pair"] for row in rows] == ['a, "b"', "c"] * 2
    assert [row["leak"] for row in rows] == ["no", "no", "yes", "yes"]
    assert float(rows[1]['minus a, "b"']) == pytest.approx(-0.15)
    assert rows[0]['minus a, "b"'] == ""


def test_pairs_of_one_name_keep_as_much_of_their_folders_as_tells_them_apart(
    tmp_path: Path,
) -> None:
    assert labels([tmp_path / "ours/fox", tmp_path / "theirs/fox"]) == ["ours/fox", "theirs/fox"]
    assert labels([tmp_path / "fox", tmp_path / "owl"]) == ["fox", "owl"]
    with pytest.raises(InvalidInput, match="named twice"):
        labels([tmp_path / "fox", tmp_path / "." / "fox"])


def test_batches_are_compared_over_the_images_that_all_have(tmp_path: Path) -> None:
    ours = batch(tmp_path / "ours", {"a": 0.1, "b": 0.6}, "batch-1-of-2.jsonl")
    batch(ours, {"a": 0.5, "c": 0.7}, "batch-2-of-2.jsonl")  # "a" was scored again
    theirs = batch(tmp_path / "theirs", {"a": 0.4, "b": 0.5, "d": 0.9})
    read = read_batches([ours, theirs])
    assert (read.images, read.left_out) == (["a", "b"], ["c", "d"])
    found = read.scores
    assert found["ours"]["dino content.subject"] == [0.5, 0.6]
    assert found["theirs"]["dino content.subject"] == [0.4, 0.5]
    with pytest.raises(InvalidInput, match="1 images in common"):
        read_batches([ours, batch(tmp_path / "third", {"c": 0.1})])


def test_scores_that_were_measured_in_two_ways_are_not_compared(tmp_path: Path) -> None:
    measured = {"samples": 16, "model": "a.safetensors", "encoders": [{"encoder": "dino"}]}
    folders = []
    for name, differs in (("ours", {}), ("theirs", {"samples": 4}), ("older", None)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        lines = [
            {"name": image, "scores": {"dino both.style": 0.5},
             **({} if differs is None else {"protocol": {**measured, **differs}})}
            for image in "ab"
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folders[-1] / "batch.jsonl").write_text(text)
    ours, theirs, older = folders
    with pytest.raises(InvalidInput, match=r"a in ours and of a in theirs .*samples 16 and 4"):
        read_batches([ours, theirs])
    assert read_batches([ours, older]).protocol == measured
    assert read_batches([older, ours]).protocol == measured


def test_the_command_compares_batches_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        batch(tmp_path / name, {"a": value, "b": value + 0.1})
        for name, value in (("ours", 0.5), ("theirs", 0.4))
    ]
    files = {kind: tmp_path / f"scores.{kind}" for kind in ("csv", "json")}
    image = tmp_path / "scores.png"
    code = main(["score", *map(str, folders), "--csv", str(files["csv"]), "--json",
                 str(files["json"]), "--plot", str(image), "--model", "/nowhere"])  # fmt: skip
    assert code == 0
    assert "-0.100 ± 0.000" in capsys.readouterr().out
    assert json.loads(files["json"].read_text())["scores"]["ours"]["other"] == [0.0, 0.0]
    assert files["csv"].read_text().startswith("measure,leak,pair,mean")
    assert Image.open(image).format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs the image"),
        (["--image", "x.png"], "no missing_content.safetensors"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_model_is_loaded(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "missing", "--model", "/nowhere", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_higher_score_lies_further_to_the_right() -> None:
    (row, _) = means(FOUND)
    page = plot([row])
    ours, theirs = (
        [
            x
            for x in range(400, page.width)
            for y in range(page.height)
            if page.getpixel((x, y)) == c
        ]
        for c in ((0, 114, 178), (213, 94, 0))
    )
    assert min(ours) < sum(ours) / len(ours) < max(ours)  # its bar
    assert sum(ours) / len(ours) > sum(theirs) / len(theirs)
    assert plot([("one sample", {"ours": Mean(0.5, math.nan, 1)})]).width == page.width
