"""The Combine tab's parts: cards to pick, grids of weights, merged files; past runs compared."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.waiting import until
from unziplora.app.products import Merged
from unziplora.app.service import Service
from unziplora.app.sheet import WeightGrid
from unziplora.errors import InvalidInput, NotFound, UnZipLoRAError
from unziplora.lora.pair import Pair
from unziplora.ui import combine_html, compare_runs, grid_html, pair_html
from unziplora.ui.combine_tab import mixed
from unziplora.ziplora.learn import MergeMessage

EVIL = "<script>alert(1)</script>"
SETTINGS = {"subject": "tree", "style": "flat drawing", "steps": 4, "rank": 2, "lr": 1e-2,
            "image_on_cards": True}  # fmt: skip


def pair(name: str) -> Pair:
    files = (Path(f"{name}_content.safetensors"), Path(f"{name}_style.safetensors"))
    return Pair(name, *files, f"sks {name}", f"{name} style", "unziplora", "600", "sdxl")


def requests(html: str) -> list[Any]:
    return [json.loads(unescape(asked)) for asked in re.findall(r'data-uz="([^"]*)"', html)]


def test_each_pair_can_be_picked_for_either_role_and_the_chosen_ones_are_marked() -> None:
    shown = combine_html.pick_cards([pair("fox"), pair(EVIL)], "fox", None)
    assert requests(shown)[:2] == [
        {"role": "content", "name": "fox"}, {"role": "style", "name": "fox"},
    ]  # fmt: skip
    assert shown.count("uz-chosen") == 1
    assert "Content ✓" in shown
    assert EVIL not in shown
    assert "No pair yet" in combine_html.pick_cards([], None, None)


def test_a_merged_file_has_its_words_and_buttons() -> None:
    merged = [Merged(Path("mixed.safetensors"), "sks fox, ink style"), Merged(Path("x"), EVIL)]
    shown = combine_html.merged_cards(merged)
    assert "sks fox in ink style" in shown
    assert [asked["do"] for asked in requests(shown)[:2]] == ["use", "delete"]
    assert EVIL not in shown
    assert combine_html.merged_cards([]) == ""


def test_a_grid_has_a_button_for_each_pair_of_weights() -> None:
    weights = (0.4, 1.0)
    image = Image.new("RGB", (8, 8))
    grid = WeightGrid(weights, {(c, s): image for c in weights for s in weights})
    shown = grid_html.weight_grid(grid, {"use": "both", "name": EVIL}, to="use")
    assert EVIL not in shown
    found = [pair_html.weights_in(asked) for asked in requests(shown)]
    assert found == [(0.4, 0.4), (0.4, 1.0), (1.0, 0.4), (1.0, 1.0)]
    assert 'aria-label="content 0.4, style 1"' in shown


@pytest.mark.parametrize("content", [None, "1", True, 1e9, float("nan")])
def test_weights_that_no_page_of_ours_sends_are_refused(content: Any) -> None:
    assert pair_html.weights_in({"use": "both"}) is None
    with pytest.raises(InvalidInput, match="no numbers"):
        pair_html.weights_in({"content": content, "style": 1.0})


Drawn = list[tuple[str, list[float]]]


@pytest.fixture(scope="module")
def all_drawn() -> Drawn:
    return []


@pytest.fixture
def drawn(all_drawn: Drawn) -> Drawn:
    """The prompts that a test draws, with the weights of their LoRAs."""
    all_drawn.clear()
    return all_drawn


@pytest.fixture(scope="module")
def service(
    documented: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, all_drawn: Drawn
) -> Service:
    """With the pairs one and two."""

    def draw(prompts: Sequence[str], loras: Any, seed: int) -> Iterator[Image.Image]:
        for prompt in prompts:
            all_drawn.append((prompt, [weight for _, weight in loras]))
            yield Image.new("RGB", (16, 16))

    host = documented["MyHost"](documented["small_unet"]())
    folder = tmp_path_factory.mktemp("combine") / "loras"
    service = Service(lambda: host, lambda: folder, draw=draw)
    image = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(image, "PNG")
    for name, steps in (("one", 4), ("two", 6)):
        job = service.start(image.getvalue(), {**SETTINGS, "name": name, "steps": steps})
        until(lambda: job.state not in ("waiting", "running"))  # noqa: B023
        assert job.state == "completed", job.error
    return service


@pytest.mark.slow
def test_two_pairs_are_looked_at_before_they_are_merged(service: Service, drawn: Drawn) -> None:
    service.four_images("one", "two", (0.8, -0.5))
    assert [weights for _, weights in drawn] == [[0.8], [-0.5], [0.8, -0.5], [0.8, -0.5]]
    assert drawn[2][0] == "a sks tree in flat drawing style"
    both = mixed(service, "one", "two")
    assert pair_html.prompt(both, "both", 1, 0.5) == (
        "a sks tree in flat drawing style <lora:one_content:1> <lora:two_style:0.5>"
    )
    for chosen in ((None, "two"), ("one", "")):
        with pytest.raises(InvalidInput, match="Two pairs are needed"):
            mixed(service, *chosen)


@pytest.mark.slow
def test_a_grid_is_drawn_once_as_long_as_the_files_stay(service: Service, drawn: Drawn) -> None:
    grid = service.weight_grid("one", "two")
    assert len(grid.images) == len(drawn) == len(grid.weights) ** 2
    assert {tuple(weights) for _, weights in drawn} == set(grid.images)
    assert service.weight_grid("one", "two") is grid
    service.weight_grid("one", "one")
    assert len(drawn) == 2 * len(grid.images)


@pytest.mark.slow
def test_a_content_gives_way_to_a_style_where_that_is_chosen(service: Service) -> None:
    parts = [("one", "content", 1.0), ("two", "style", 1.0)]
    made = {how: service.merge_pairs(f"merged-{how}", parts, how) for how in ("add", "np")}
    assert made["add"].stat().st_size < 1.1 * made["np"].stat().st_size
    described = json.loads(made["np"].with_suffix(".json").read_text("utf-8"))["description"]
    assert described == (
        "The sum of one_content, projected against two_style (NP-LoRA, mu 1), and two_style."
    )
    with pytest.raises(InvalidInput, match="the first file is a style"):
        service.merge_pairs("turned", parts[::-1], "np")
    for how in made:
        service.delete_merged(f"merged-{how}")


@pytest.mark.slow
def test_mergers_are_learned_on_the_services_model_until_it_is_stopped(service: Service) -> None:
    parts = [(service.file("one", "content"), 1.0), (service.file("two", "style"), 0.9)]
    events = []
    service.merges.on_event = events.append
    merging = service.start_merge("zipped", parts)
    with pytest.raises(InvalidInput, match="zipped is being merged already"):
        service.start_merge("other", parts)
    until(lambda: merging.step >= 1 or merging.state != "running")
    assert "data-active" in combine_html.merge_progress(merging)
    assert {"do": "stop"} in requests(combine_html.merge_progress(merging))
    with pytest.raises(InvalidInput, match="model is in use"):
        service.sheet("one", "two")
    service.merges.stop()
    assert merging.result().name == "zipped.safetensors"
    assert merging.state == "stopped"
    assert 1 <= merging.step < merging.steps
    assert isinstance(events[-1], MergeMessage)
    assert combine_html.merge_progress(merging) == ""
    assert "Merged into zipped.safetensors" in combine_html.merge_result(merging)
    assert "of step" in combine_html.merge_result(merging)
    assert merging.as_json()["file"] == "zipped.safetensors"
    assert "zipped" in [merged.path.stem for merged in service.merged()]
    service.delete_merged("zipped")


@pytest.mark.slow
def test_a_merge_that_fails_says_why_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [("one", "content", 1.0), ("two", "style", 1.0)]
    host = service.open_host()
    monkeypatch.setattr(host, "encode_image", lambda *_: 1 / 0)
    with pytest.raises(UnZipLoRAError, match="ended unexpectedly"):
        service.merge_pairs("zipped", parts, "zip")
    assert "ZeroDivisionError" in combine_html.merge_result(service.merges.current)
    assert service.merges.current.as_json()["error"].startswith("The merge ended unexpectedly")
    assert not list(service.folder().glob("zipped*"))
    assert "forward" not in next(iter(host.unet.children())).__dict__
    with service.jobs.reserve_model():  # it is free again
        pass


@pytest.mark.slow
def test_a_merged_file_is_listed_with_a_card_and_deleted_with_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = service.merge_pairs("mixed", [("one", "content", 1.0), ("two", "style", 0.5)])
    (merged,) = service.merged()
    assert merged == Merged(made, "sks tree, flat drawing style")
    card = json.loads(made.with_suffix(".json").read_text("utf-8"))
    assert card["activation text"] == merged.trigger
    assert made.with_suffix(".png").is_file()
    assert {p.name for p in service.pairs()} == {"one", "two"}
    with pytest.raises(NotFound, match="no merged file"):
        service.delete_merged("one_content")
    heard: list[object] = []  # by a WebUI, which remembers files by name
    monkeypatch.setattr(service, "saved", heard.append)
    removed = service.delete_merged("mixed")
    assert heard == [{}]
    assert removed == ["mixed.safetensors", "mixed.json", "mixed.png"]
    assert service.merged() == []
    assert not list(service.folder().glob("mixed*"))


@pytest.mark.slow
def test_two_past_runs_are_compared(service: Service) -> None:
    assert service.past_runs() == ["one", "two"]
    previews = {"both": service.pair("one").content.with_suffix(".png")}
    runs = [(name, *service.past_run(name), previews) for name in service.past_runs()]
    assert [len(rows) for _, _, rows, _ in runs] == [4, 6]
    shown = compare_runs.side_by_side(runs)
    assert shown.count("<polyline") == 6
    assert shown.count("<figcaption>both") == 2
    row = r"<tr><th>([^<]*)</th><td>([^<]*)</td><td>([^<]*)"
    differing, _, same = shown.partition("<details>")
    assert ("steps", "4", "6") in re.findall(row, differing)
    assert all(one != other for _, one, other in re.findall(row, differing))
    assert {name for name, *_ in re.findall(row, same)} >= {"rank", "subject", "seed", "model"}
    assert all(one == other for _, one, other in re.findall(row, same))
    assert compare_runs.side_by_side([]) == ""
    assert EVIL not in compare_runs.side_by_side([(EVIL, *service.past_run("one"), previews)])
