"""A study: order and sides at random, answers kept without names, results with their intervals."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.study.store import Store, wilson
from unziplora.study.trials import QUESTIONS, Trial, open_results, trials_for

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")

NAMES = [f"image-{n}" for n in range(12)]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two methods' results of twelve images; each image says in its pixels whose it is."""
    for tone, method in ((50, "unziplora"), (200, "b-lora")):
        for name in NAMES:
            for part in QUESTIONS.values():
                folder = tmp_path / method / "samples" / name / part
                folder.mkdir(parents=True)
                for n in range(2):
                    Image.new("RGB", (8, 8), (tone, 0, n)).save(folder / f"{n}.png")
            Image.new("RGB", (8, 8), "white").save(folder.parent / "image.png")
    return [tmp_path / "unziplora", tmp_path / "b-lora"]


@pytest.fixture
def study(folders: list[Path], tmp_path: Path) -> Any:
    from unziplora.study.server import make_study

    store = Store(tmp_path / "answers.sqlite")
    client = testclient.TestClient(make_study(open_results(folders), store))
    return store, client


def trials_of(folders: Sequence[Path], seed: int) -> list[Trial]:
    return trials_for(sorted(NAMES), [folder.name for folder in folders], seed)


def method_shown(client: Any, base: str, task: dict[str, Any], side: str) -> str:
    reply = client.get(f"{base}/{task['trial']}/{task['question']}/{side}/0")
    tone = Image.open(io.BytesIO(reply.content)).getpixel((0, 0))[0]
    return "unziplora" if tone == 50 else "b-lora"


def answer_all(study: Any, folders: list[Path], token: str, *, attentive: bool = True) -> int:
    """Prefers unziplora everywhere; checks are answered rightly or wrongly. Count of clicks."""
    store, client = study
    checks = {t.number: t.expected for t in trials_of(folders, store.seed(token))}
    base, clicks = f"/p/{token}", 0
    task = client.get(f"{base}/next").json()
    while "trial" in task:
        expected = checks[task["trial"]]
        if expected is not None:
            side = expected if attentive else {"left": "right", "right": "left"}[expected]
        else:
            side = next(
                s for s in ("left", "right") if method_shown(client, base, task, s) == "unziplora"
            )
        body = {"trial": task["trial"], "question": task["question"], "side": side}
        task = client.post(f"{base}/answer", json=body).json()
        clicks += 1
    assert task["done"] == task["total"] == clicks
    return clicks


@pytest.mark.slow
def test_two_participants_see_all_in_their_own_order_and_results_count_both(
    study: Any, folders: list[Path]
) -> None:
    store, client = study
    first, second = store.invite(2)
    orders = [trials_of(folders, store.seed(t)) for t in (first, second)]
    for token in (first, second):
        answer_all(study, folders, token)
    found = store.preferences()
    assert {p.question for p in found} == set(QUESTIONS)
    for preference in found:
        assert (preference.first, preference.second) == ("b-lora", "unziplora")
        assert preference.share == 0
        assert preference.n == 2 * len(NAMES)
        assert 0 == preference.low < preference.high < 0.2
    page = client.get(f"/results/{store.key()}").text
    assert "2 participants, 0 left out" in page
    rows = list(csv.DictReader(io.StringIO(client.get(f"/results/{store.key()}/csv").text)))
    assert len(rows) == 2 * 3 * len(orders[0])
    assert not any(token in str(rows) for token in (first, second))


def test_each_participant_has_an_order_of_its_own(study: Any, folders: list[Path]) -> None:
    store, _ = study
    orders = [trials_of(folders, store.seed(t)) for t in store.invite(2)]
    assert [t.name for t in orders[0]] != [t.name for t in orders[1]]
    for order in orders:
        assert sorted(t.name for t in order if t.expected is None) == sorted(NAMES)
        assert {t.left[0] for t in order} == {"unziplora", "b-lora"}  # both sides are used
        assert any(t.expected for t in order)


def test_who_fails_the_checks_is_left_out(study: Any, folders: list[Path]) -> None:
    store, _ = study
    (token,) = store.invite(1)
    answer_all(study, folders, token, attentive=False)
    assert store.inattentive() == {token}
    assert store.preferences() == []
    assert store.participants() == 1


def test_a_study_continues_where_it_was_after_a_restart(
    study: Any, folders: list[Path], tmp_path: Path
) -> None:
    from unziplora.study.server import make_study

    store, client = study
    (token,) = store.invite(1)
    task = client.get(f"/p/{token}/next").json()
    client.post(
        f"/p/{token}/answer", json={**{k: task[k] for k in ("trial", "question")}, "side": "left"}
    )
    again = Store(tmp_path / "answers.sqlite")
    assert again.key() == store.key()
    assert again.invite(1) == [token]
    other = testclient.TestClient(make_study(open_results(folders), again))
    assert other.get(f"/p/{token}/next").json()["done"] == 1


def add_image(folders: Sequence[Path], name: str) -> None:
    for folder in folders:
        shutil.copytree(folder / "samples" / NAMES[0], folder / "samples" / name)


def answer_one(client: Any, token: str, task: dict[str, Any]) -> dict[str, Any]:
    body = {**{k: task[k] for k in ("trial", "question")}, "side": "left"}
    return dict(client.post(f"/p/{token}/answer", json=body).json())


def test_an_image_added_to_the_folders_leaves_the_comparisons_as_they_were(
    study: Any, folders: list[Path]
) -> None:
    store, client = study
    (token,) = store.invite(1)
    task = client.get(f"/p/{token}/next").json()
    left = method_shown(client, f"/p/{token}", task, "left")
    shown = trials_of(folders, store.seed(token))[task["trial"]]
    add_image(folders, "a-new-one")  # a batch that still runs
    after = answer_one(client, token, task)
    (row,) = csv.DictReader(io.StringIO(store.as_csv()))
    assert (row["image"], row["left"]) == (shown.name, left)
    assert after["total"] == task["total"]


def test_a_study_with_answers_refuses_other_images_and_methods(
    study: Any, folders: list[Path], tmp_path: Path
) -> None:
    from unziplora.study.server import make_study

    store, client = study
    (token,) = store.invite(1)
    task = client.get(f"/p/{token}/next").json()
    next_task = answer_one(client, token, task)
    turned = testclient.TestClient(make_study(open_results(folders[::-1]), store))
    assert turned.get(f"/p/{token}/next").json() == next_task
    sides = [method_shown(c, f"/p/{token}", next_task, "left") for c in (client, turned)]
    assert sides[0] == sides[1]  # the order of the folders on the command line changes no side
    add_image(folders, "a-new-one")
    with pytest.raises(InvalidInput, match="--answers"):
        make_study(open_results(folders), Store(tmp_path / "answers.sqlite"))
    make_study(open_results(folders), Store(tmp_path / "others.sqlite"))


def test_answers_without_a_record_of_the_comparison_are_checked_one_by_one(
    study: Any, folders: list[Path], tmp_path: Path
) -> None:
    import sqlite3

    from unziplora.study.server import make_study

    store, client = study
    (token,) = store.invite(1)
    answer_one(client, token, client.get(f"/p/{token}/next").json())
    with sqlite3.connect(tmp_path / "answers.sqlite") as database:
        database.execute("delete from settings where key = 'comparison'")
    make_study(open_results(folders), store)  # they are of these folders
    with sqlite3.connect(tmp_path / "answers.sqlite") as database:
        database.execute("delete from settings where key = 'comparison'")
        database.execute("update answers set left = right, right = left")
    with pytest.raises(InvalidInput, match="other images or methods"):
        make_study(open_results(folders), store)


def test_a_study_without_answers_takes_what_the_folders_have_now(
    study: Any, folders: list[Path], tmp_path: Path
) -> None:
    from unziplora.study.server import make_study

    store, client = study
    (token,) = store.invite(1)
    add_image(folders, "a-new-one")
    make_study(open_results(folders), store)
    again = testclient.TestClient(make_study(open_results(folders), store))
    before, after = (c.get(f"/p/{token}/next").json()["total"] for c in (client, again))
    assert after == before + len(QUESTIONS)


def test_a_participants_pages_never_name_a_method(study: Any) -> None:
    store, client = study
    (token,) = store.invite(1)
    base = f"/p/{token}"
    task = client.get(f"{base}/next").json()
    replies = [
        client.get(base),
        client.get(f"{base}/next"),
        client.get(f"{base}/{task['trial']}/image"),
        client.get(f"{base}/{task['trial']}/{task['question']}/left/0"),
    ]
    for reply in replies:
        assert reply.status_code == 200
        assert b"unziplora" not in reply.content
        assert "lora" not in str(reply.headers).lower()


@pytest.mark.parametrize(
    "path",
    ["/p/unknown", "/p/unknown/next", "/results/wrong", "/results/wrong/csv", "/docs",
     "/p/{token}/999/image", "/p/{token}/0/subject/left/99"],
)  # fmt: skip
def test_unknown_links_and_numbers_are_404(study: Any, path: str) -> None:
    store, client = study
    (token,) = store.invite(1)
    assert client.get(path.format(token=token)).status_code == 404


def test_a_body_that_is_no_answer_is_refused_and_not_kept(study: Any) -> None:
    store, client = study
    (token,) = store.invite(1)
    good = {"trial": 0, "question": "subject", "side": "left"}
    for path, body, status in (
        ("/p/unknown/answer", {**good, "x": "x" * 20_000}, 404),
        (f"/p/{token}/answer", {**good, "x": "x" * 20_000}, 413),
        (f"/p/{token}/answer", {**good, "side": "up"}, 422),
        (f"/p/{token}/answer", [good], 422),
        (f"/p/{token}/answer", {"question": "subject"}, 422),
    ):
        assert client.post(path, json=body).status_code == status, body
    assert store.participants() == 0


def test_folders_that_cannot_be_compared_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="needs two folders"):
        open_results(folders[:1])
    with pytest.raises(InvalidInput, match="Two folders are named"):
        open_results([folders[0], folders[0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no image in common"):
        open_results([folders[0], tmp_path / "empty"])


def test_wilsons_interval_is_the_published_one() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20)[0] == 0
    assert round(wilson(0, 20)[1], 4) == 0.1611
