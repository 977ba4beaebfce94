"""What page and API share: pairs are found, combined, published and deleted; names stay names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.waiting import until
from unziplora.app.job import ENDED
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.lora.read import read_lora
from unziplora.training.model_traits import ModelInfo

SETTINGS = {"subject": "tree", "style": "flat drawing", "steps": 2, "rank": 2,
            "image_on_cards": True}  # fmt: skip


@pytest.fixture
def saved() -> list[dict[str, Path]]:
    return []


@pytest.fixture
def service(host: Any, tmp_path: Path, saved: list[dict[str, Path]]) -> Service:
    def draw(prompts: Sequence[str], loras: Any, seed: int) -> Iterator[Image.Image]:
        for number, _ in enumerate(prompts):
            yield Image.new("RGB", (16, 16), (40 * len(loras), seed + number, 99))

    return Service(
        lambda: host,
        lambda: tmp_path,
        lambda files: saved.append(dict(files)),
        draw,
        model_info=lambda: ModelInfo(host.unet, host.device, host.defaults),
    )


def trained(service: Service, image: Path, name: str) -> None:
    job = service.start(image, {**SETTINGS, "name": name})
    until(lambda: job.state not in ("waiting", "running"))
    assert job.state == "completed", job.error


def test_a_pair_is_found_and_the_program_is_told(
    service: Service, image_file: Path, saved: list[dict[str, Path]]
) -> None:
    trained(service, image_file, "one")
    (pair,) = service.pairs()
    assert (pair.name, pair.content_trigger, pair.style_trigger) == (
        "one", "sks tree", "flat drawing style",
    )  # fmt: skip
    assert [set(files) for files in saved] == [{"content", "style"}]


def test_two_files_that_are_not_of_one_run_are_no_pair(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    trained(service, image_file, "one")
    trained(service, image_file, "two")
    (tmp_path / "two_style.safetensors").rename(tmp_path / "one_style.safetensors")
    assert service.pairs() == []


def test_content_and_style_of_two_pairs_become_one_file(
    service: Service, image_file: Path, saved: list[dict[str, Path]]
) -> None:
    trained(service, image_file, "one")
    trained(service, image_file, "two")
    parts = [(service.pair("one").content, 0.8), (service.pair("two").style, 1.0)]
    made = service.merge("mixed", parts)
    assert read_lora(made).metadata["modelspec.trigger_phrase"] == "sks tree, flat drawing style"
    assert saved[-1] == {"merged": made}
    with pytest.raises(InvalidInput, match="exists"):
        service.merge("mixed", parts)


def test_a_published_folder_has_the_files_and_their_images(
    service: Service, image_file: Path
) -> None:
    trained(service, image_file, "one")
    folder = service.publish("one")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "one_content.safetensors", "one_style.safetensors", "README.md", "civitai.txt",
        "images/content.png", "images/style.png",
    }  # fmt: skip


def test_the_sheet_shows_content_style_and_both(service: Service, image_file: Path) -> None:
    trained(service, image_file, "one")
    colours = service.sheet("one", "one").getcolors(1 << 20)
    assert colours is not None
    reds = {c[0] for _, c in colours if c[2] == 99 and c[1] < 4}  # type: ignore[index]
    assert reds == {40, 80}


def test_each_part_of_a_sheet_has_its_own_weight(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    asked: list[list[float]] = []

    def draw(prompts: Sequence[str], loras: Any, seed: int) -> Iterator[Image.Image]:
        asked.append([weight for _, weight in loras])
        return iter([Image.new("RGB", (16, 16))] * len(prompts))

    service = Service(lambda: host, lambda: tmp_path, draw=draw)
    trained(service, image_file, "one")
    service.sheet("one", "one", (0.5, 0.8))
    assert asked == [[0.5], [0.8], [0.5, 0.8]]


@pytest.mark.slow
def test_a_sheet_and_a_run_never_use_the_model_at_once(service: Service, image_file: Path) -> None:
    trained(service, image_file, "one")
    with service.jobs.reserve_model():
        job = service.start(image_file, {**SETTINGS, "name": "two"})
        time.sleep(0.3)
        assert job.state == "waiting"
        with pytest.raises(InvalidInput, match="in use"):
            service.sheet("one", "one")
    until(lambda: job.state in ENDED)
    assert job.state == "completed", job.error


def test_without_a_name_the_words_get_a_number_where_they_are_taken(
    service: Service, image_file: Path
) -> None:
    names = [service.start(image_file, SETTINGS).name for _ in range(3)]
    assert names == ["tree-flat-drawing", "tree-flat-drawing-2", "tree-flat-drawing-3"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("file", ["image.png", "mask.png"])
def test_a_run_is_not_begun_again_on_what_a_link_leads_to(
    service: Service, image_file: Path, tmp_path: Path, file: str
) -> None:
    trained(service, image_file, "oak")
    linked = service.run_folder("oak").path / file
    linked.unlink(missing_ok=True)
    linked.symlink_to(image_file)
    for again in (lambda: service.restart("oak"), lambda: service.train_more("oak", 2)):
        with pytest.raises(InvalidInput, match="no copy of its image"):
            again()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_report_takes_no_log_but_the_runs_own(service: Service, tmp_path: Path) -> None:
    from unziplora.app.bug_report import report

    secret = tmp_path / "secret.txt"
    secret.write_text("of somebody else\n")
    folder = service.run_folder("oak")
    folder.make()
    folder.log.symlink_to(secret)
    assert "somebody" not in report({}, folder)
    folder.log.unlink()
    os.mkfifo(folder.log)  # opening it would wait for a writer
    assert "end of the log" not in report({}, folder)


def test_a_damaged_file_is_no_pair_and_hides_no_other(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    trained(service, image_file, "one")
    for role in ("content", "style"):
        (tmp_path / f"broken_{role}.safetensors").write_bytes(b"no tensors")
    assert [pair.name for pair in service.pairs()] == ["one"]
    with pytest.raises(InvalidInput, match="no pair"):
        service.pair("broken")


@pytest.mark.slow
def test_a_deleted_run_leaves_the_pair_and_what_others_put_beside_it(
    service: Service, image_file: Path, tmp_path: Path
) -> None:
    trained(service, image_file, "one")
    mine = service.run_folder("one").path / "mine.txt"
    mine.write_text("kept")
    service.delete_run("one")
    assert not service.run_folder("one").exists()
    assert mine.exists()
    assert service.pair("one")
    with pytest.raises(InvalidInput, match="no run"):
        service.delete_run("one")


@pytest.mark.slow
def test_a_deleted_pair_leaves_the_run_and_other_files(
    service: Service, image_file: Path, saved: list[dict[str, Path]]
) -> None:
    trained(service, image_file, "one")
    trained(service, image_file, "one-more")
    removed = service.delete("one")
    assert saved[-1] == {}  # a WebUI, which remembers files by name, hears of it
    assert "one_content.safetensors" in removed
    assert [pair.name for pair in service.pairs()] == ["one-more"]
    assert service.run_folder("one").exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc"])
def test_a_name_that_leads_out_of_the_folder_is_refused(service: Service, name: str) -> None:
    with pytest.raises(InvalidInput):
        service.run_folder(name)
    with pytest.raises(InvalidInput):
        service.resume(name)
    with pytest.raises(InvalidInput):
        service.merge(name, [])
    with pytest.raises(InvalidInput):
        service.publish(name)


def test_a_run_without_a_state_cannot_be_resumed(service: Service, image_file: Path) -> None:
    trained(service, image_file, "one")
    assert service.resumable() == []
    with pytest.raises(InvalidInput, match="no saved state"):
        service.resume("one")


def test_what_a_run_needs_is_told_before_it_and_its_time_after_one_like_it(
    service: Service, image_file: Path
) -> None:
    first = service.forecast({"rank": 2, "memory": "checkpoint"})
    assert first is not None
    assert (first[0].rank, first[0].plan.name, first[1]) == (2, "checkpoint", None)
    wider = service.forecast({"rank": 8, "memory": "checkpoint"})
    assert wider is not None
    assert wider[0].needs["checkpoint"] > first[0].needs["checkpoint"]
    with pytest.raises(InvalidInput, match="rank cannot be 0"):
        service.forecast({"rank": 0})

    plan = service.forecast(SETTINGS)[0].plan.name  # type: ignore[index]
    trained(service, image_file, "one")
    assert service.jobs.all()[0].step == 2
    told = [service.forecast({"rank": 2, "steps": n, "memory": plan})[1] for n in (2, 200)]  # type: ignore[index]
    assert told[1] == pytest.approx(100 * told[0])
    assert service.forecast({"rank": 4, "steps": 2})[1] is None  # type: ignore[index]


def test_without_a_loaded_model_nothing_is_foretold(host: Any, tmp_path: Path) -> None:
    service = Service(lambda: host, lambda: tmp_path)
    assert service.forecast({}) is None
    assert service.smallest_plan() == "auto"


def test_the_smallest_plan_is_one_that_saves_memory_here(service: Service) -> None:
    assert service.smallest_plan() == "low"  # fp8 saves nothing on a CPU
