"""A manifest is checked whole before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from unziplora.errors import InvalidInput
from unziplora.training.manifest import read_manifest, shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "with, comma.png"):
        (tmp_path / name).write_bytes(b"opened later")
    return tmp_path


def written(folder: Path, text: str, name: str = "jobs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def written_bytes(folder: Path, data: bytes) -> Path:
    path = folder / "jobs.csv"
    path.write_bytes(data)
    return path


def test_csv_cells_become_the_settings_own_types(folder: Path) -> None:
    path = written(
        folder,
        "image,subject,style,steps,lr,flip,name\n"
        "a.png,cat,ink drawing,30,1e-4,true,7\n"
        '"with, comma.png",dog,"oil, thick",,,,\n',
    )
    first, second = read_manifest(path, {"steps": 600})
    assert first.image == folder / "a.png"
    assert first.name == "7"
    assert first.settings == {
        "subject": "cat", "style": "ink drawing", "steps": 30, "lr": 1e-4, "flip": True,
        "name": "7",
    }  # fmt: skip
    assert second.settings == {"subject": "dog", "style": "oil, thick", "steps": 600}
    assert (first.line, second.line) == (2, 3)


def test_json_lines_say_the_same(folder: Path) -> None:
    text = '\ufeff{"image": "a.png", "subject": "cat", "style": "ink", "steps": 30}\n\n'
    (job,) = read_manifest(written(folder, text, "jobs.jsonl"), {})
    assert job.settings == {"subject": "cat", "style": "ink", "steps": 30}


@pytest.mark.parametrize(
    "data",
    [
        b"image,subject,style,steps\na.png,cat,ink drawing,30\n",
        b"\xef\xbb\xbfimage,subject,style,steps\r\na.png,cat,ink drawing,30\r\n\r\n",
        b"image,subject,style,steps\ra.png,cat,ink drawing,30\r",
        b"image;subject;style;steps\na.png;cat;ink drawing;30\n",
        b"image\tsubject\tstyle\tsteps\na.png\tcat\tink drawing\t30\n",
        b' Image , Subject,STYLE,steps,\n"a.png"," cat ","ink drawing",30,\n',
        b"steps,style,image,subject\n30,ink drawing,./a.png,cat",
    ],
)
def test_what_spreadsheets_make_of_a_table_is_read(folder: Path, data: bytes) -> None:
    (job,) = read_manifest(written_bytes(folder, data), {})
    assert job.settings == {"subject": "cat", "style": "ink drawing", "steps": 30}
    assert job.image.samefile(folder / "a.png")
    assert job.line == 2


def test_images_may_lie_anywhere(folder: Path, tmp_path: Path) -> None:
    (folder / "lists").mkdir()
    rows = f"image,subject,style,name\n../a.png,cat,ink,one\n{folder / 'b.png'},cat,ink,two\n"
    jobs = read_manifest(written(folder / "lists", rows), {})
    assert [job.image.resolve() for job in jobs] == [folder / "a.png", folder / "b.png"]


def test_lines_are_counted_as_an_editor_does(folder: Path) -> None:
    text = 'image,subject,style\na.png,cat,"oil,\nthick"\n\nmissing.png,cat,ink\n'
    with pytest.raises(InvalidInput, match=r"line 5: .*missing\.png"):
        read_manifest(written(folder, text), {})


@pytest.mark.parametrize("name", ["../outside", "a/b", "con", "."])
def test_a_name_that_is_no_files_is_a_fault(folder: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="line 2: The name"):
        read_manifest(written(folder, f"image,subject,style,name\na.png,cat,ink,{name}\n"), {})


def test_a_json_text_may_hold_any_line_separator(folder: Path) -> None:
    text = '{"image": "a.png", "subject": "cat", "style": "ink\u2028drawing"}'
    with pytest.raises(InvalidInput) as caught:  # the settings' own words, not "no JSON"
        read_manifest(written(folder, text, "jobs.jsonl"), {})
    assert "1 fault" in str(caught.value)
    assert "JSON" not in str(caught.value)


def test_all_faults_are_listed_with_their_lines(folder: Path) -> None:
    path = written(
        folder,
        "image,subject,style,steps,stepz\n"
        "a.png,cat,ink,thirty,\n"
        "missing.png,cat,oil,30,\n"
        ",cat,felt,30,\n"
        "a.png,,ink,30,\n"
        "a.png,dog,ink,30,5\n"
        "a.png,dog,ink,30,5,6,7\n"
        "b.png,Cat,clay,30,\n"
        "a.png,cat,clay,30,\n",
    )
    with pytest.raises(InvalidInput) as caught:
        read_manifest(path, {})
    text = str(caught.value)
    for line, words in {
        2: "steps", 3: "missing.png", 4: "no image", 5: "no subject", 6: "'stepz'", 7: "7 cells",
        9: "that of line 8 too",
    }.items():  # fmt: skip
        assert any(f"line {line}:" in part and words in part for part in text.split(" · ")), text
    assert "7 faults" in text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jobs.csv", "", "no column `image`"),
        ("jobs.csv", "picture,subject\na.png,cat\n", "no column `image`"),
        ("jobs.csv", "image,subject,style\n", "names no image"),
        ("jobs.csv", 'image,subject,style\n"a.png,cat,ink\n', "not CSV"),
        ("jobs.csv", "image,subject,style,steps,Steps\n", "column `steps` twice"),
        ("jobs.jsonl", "[1]\n{\n", "line 2: This is not a JSON object"),
        ("jobs.jsonl", '{"image": "a.png", "image": "b.png"}', "each key once"),
        ("jobs.jsonl", "[" * 100_000, "not a JSON object"),
        (
            "jobs.jsonl",
            '{"image": "a.png", "blocks": [' + "[]," * 500 + "[]]}",
            "not a JSON object",
        ),
        ("jobs.csv", "image,subject,style,blocks\na.png,cat,ink," + "[" * 300, "blocks"),
        ("jobs.csv", "image,subject,style\n" + "x" * 4_000_000, "Split it into several"),
        ("jobs.jsonl", "\n" * 100_001, "Split it into several"),
        (
            "jobs.jsonl",
            '{"image": "' + "a" * 5000 + '.png", "subject": "a", "style": "b"}',
            "no image",
        ),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(
    folder: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_manifest(written(folder, text, name), {})


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_refused_with_its_line(folder: Path, encoding: str) -> None:
    data = "image,subject,style\na.png,cat,Öl\n".encode(encoding)
    with pytest.raises(InvalidInput, match=r"Line \d of .* is not UTF-8"):
        read_manifest(written_bytes(folder, data), {})


def test_shards_share_all_jobs_between_them(folder: Path) -> None:
    rows = "".join(f"a.png,cat,ink,{n}\n" for n in range(7))
    jobs = read_manifest(written(folder, "image,subject,style,name\n" + rows), {})
    shards = [shard(jobs, f"{n}/3") for n in (1, 2, 3)]
    assert sorted(job.name for part in shards for job in part) == [str(n) for n in range(7)]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3"):
        with pytest.raises(InvalidInput, match="not i/n"):
            shard(jobs, wrong)
