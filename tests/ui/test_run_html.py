"""What the page shows of a run, and that nothing a user typed becomes HTML."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unziplora.app.job import Job
from unziplora.app.library import StoredRun
from unziplora.app.service import Service
from unziplora.errors import InvalidInput
from unziplora.host import ModelIdentity
from unziplora.lora.pair import Pair
from unziplora.training.events import Drawing, Message, Previewed, Started, StepDone
from unziplora.training.memory_forecast import Forecast
from unziplora.training.memory_plans import PLANS
from unziplora.training.model_traits import ModelInfo
from unziplora.training.settings import Settings
from unziplora.ui import finish_html, html, model_header, pair_html, queue_html, run_html
from unziplora.ui.answers import attempt, message_from, parse_request
from unziplora.ui.block_names import plain_names
from unziplora.unet.architectures import family

EVIL = "<script>alert(1)</script>"


def job(name: str = "cat", steps: int = 3) -> Job:
    def never() -> None:
        raise AssertionError

    made = Job(name, never, never, state="running")  # type: ignore[arg-type]
    made.note(Started(name, 0, 10, "sdxl", 560, "full"))
    for step in range(1, steps + 1):
        made.note(
            StepDone(
                step, 10, 0.1 / step, None, 1e-4, {"content": 0.3, "style": 0.2}, 1.0, 370.0, None
            )
        )
    return made


def test_it_shows_the_step_the_time_left_and_the_loss() -> None:
    shown = run_html.headline(job())
    assert "3 of 10 steps" in shown
    assert "6:10 left" in shown
    assert "loss 0.061" in shown  # of the last 25 steps
    assert 'aria-valuenow="30"' in shown
    assert run_html.curves(job()).count("<polyline") == 3


def test_while_previews_are_drawn_it_shows_which() -> None:
    made = job()
    made.note(Drawing(3, 2, 4))
    assert "3 of 10 steps · drawing previews, 2 of 4" in run_html.headline(made)
    made.note(Previewed(3, {}))
    assert "drawing" not in run_html.headline(made)


def test_curves_grow_to_the_right_and_move_nothing_that_is_drawn() -> None:
    earlier, later = (run_html.curves(job(steps=steps)) for steps in (2, 3))
    points = [re.findall(r'uz-content" points="([^"]*)"', curves)[0] for curves in (earlier, later)]
    assert points[1].startswith(points[0])


def test_before_the_first_run_it_says_so() -> None:
    assert "No run yet" in run_html.headline(None)


def test_a_preview_that_is_gone_leaves_its_place_empty(tmp_path: Path) -> None:
    made = job()
    Image.new("RGB", (8, 8)).save(tmp_path / "base.png")
    names = ("base", "content", "style", "both")
    made.note(Previewed(3, {name: tmp_path / f"{name}.png" for name in names}))
    shown = run_html.images(made, tmp_path / "gone.png")
    assert shown.count("<img") == 1
    assert shown.count("uz-blank") == 4
    assert "after step 3" in shown


def test_what_users_and_files_say_is_inert() -> None:
    evil = job(EVIL)
    evil.note(Message(EVIL))
    evil.error = EVIL
    pair = Pair(EVIL, Path("c"), Path("s"), EVIL, EVIL, EVIL, EVIL, EVIL)
    for shown in (
        run_html.headline(evil),
        run_html.notes(evil),
        queue_html.queue([Job(EVIL, evil.begin, evil.again)]),
        pair_html.pairs([pair], 1, True),
        pair_html.runs([StoredRun(EVIL, True, 3, Path("p")), StoredRun(EVIL, False, None, None)]),
        html.message(EVIL, error=True),
    ):
        assert EVIL not in shown
        assert "&lt;script&gt;" in shown


def test_a_button_says_what_it_asks_for_in_a_quoted_attribute() -> None:
    name = 'it\'s "quoted" & <b>'
    shown = html.button("Resume", "results", {"do": "resume", "name": name}, f"resume {name}")
    (asked,) = re.findall(r'data-uz="([^"]*)"', shown)
    assert json.loads(unescape(asked)) == {"do": "resume", "name": name}


@pytest.mark.parametrize(
    ("use", "content", "style", "expected"),
    [
        ("both", 1.0, 1.0, "a sks cat in mosaic style <lora:x_content:1> <lora:x_style:1>"),
        ("both", 0.8, 0.0, "a sks cat <lora:x_content:0.8>"),
        ("content", 0.8, 1.0, "a sks cat <lora:x_content:0.8>"),
        ("style", 1.0, 1.0, "an image in mosaic style <lora:x_style:1>"),
        ("both", 0.0, 0.0, ""),
    ],
)
def test_the_prompt_calls_what_is_used_and_has_a_weight(
    use: str, content: float, style: float, expected: str
) -> None:
    pair = Pair("x", Path("x_content.safetensors"), Path("x_style.safetensors"), "sks cat",
                "mosaic style", "unziplora", "600", "sdxl")  # fmt: skip
    assert pair_html.prompt(pair, use, content, style) == expected


@pytest.mark.parametrize(
    ("free", "light", "text"),
    [
        (12.4, "green", "VRAM: about 9.1 GB of 12.4 GB free (plan: checkpoint)"),
        (9.5, "amber", "VRAM: about 9.1 GB of 9.5 GB free (plan: checkpoint)"),
        (None, "green", "VRAM: about 9.1 GB (plan: checkpoint)"),
        (8.0, "red", "VRAM: about 9.1 GB of 8.0 GB free (plan: checkpoint, may not fit)"),
    ],
)
def test_the_memory_line_shows_need_free_memory_and_plan(
    free: float | None, light: str, text: str
) -> None:
    needs = {"full": 12.8, "selective": 10.1, "checkpoint": 9.1}
    expected = Forecast("sdxl", 1024, 64, needs, free, PLANS["checkpoint"])
    assert expected.text == text
    assert model_header.light(expected) == light


def test_the_models_line_has_its_name_family_memory_and_time(host: Any, tmp_path: Path) -> None:
    service = Service(
        lambda: host,
        lambda: tmp_path,
        model_info=lambda: ModelInfo(host.unet, host.device, host.defaults),
        checkpoint=lambda: ModelIdentity("base.safetensors", family="SDXL 1.0"),
    )
    line = model_header.header(service, {"rank": 2}).line
    assert "Checkpoint: base.safetensors (SDXL 1.0)" in line
    assert ">RAM: about " in line
    assert "he fastest plan<" in line
    assert "data-loaded" in line
    assert "rank cannot be 0" in model_header.header(service, {"rank": 0}).line
    empty = Service(lambda: host, lambda: tmp_path)
    assert "not loaded yet" in model_header.header(empty, {}).line
    assert "data-loaded" not in model_header.header(empty, {}).line


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_a_time_to_come_is_rounded(seconds: float, said: str) -> None:
    assert html.rough_duration(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (370, "6:10"), (3970, "1:06:10")])
def test_durations_read_as_on_a_clock(seconds: float, said: str) -> None:
    assert html.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "text"),
    [(600, "600"), (0.001, "0.001"), (5e-5, "5e-5"), (1.5e-4, "1.5e-4"), (0, "0"), (1024, "1024")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert html.number(value) == text


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_smoothing_stays_between_the_values(values: list[float]) -> None:
    out = run_html.smoothed(values)
    assert len(out) == len(values)
    assert min(values) - 1e-9 <= min(out)
    assert max(out) <= max(values) + 1e-9


def test_a_finished_run_offers_its_loras_with_the_image_that_each_learned(tmp_path: Path) -> None:
    made = job()
    made.state = "completed"
    made.files = {role: tmp_path / f"cat_{role}.safetensors" for role in ("content", "style")}
    images = {name: tmp_path / f"{name}.png" for name in ("content", "style", "both")}
    for path in (*images.values(), tmp_path / "image.png"):
        Image.new("RGB", (8, 8)).save(path)
    made.note(Previewed(3, images))
    shown = finish_html.finish_card(made, tmp_path / "image.png", in_webui=True)
    assert shown.count("<img") == 4
    for use in ("both", "content", "style"):
        assert f'aria-label="use {use} of cat"' in shown
    assert "Both LoRAs are ready, after 3 steps" in shown
    made.state = "stopped"
    shown = finish_html.finish_card(made, tmp_path / "image.png", in_webui=True)
    assert "Stopped: both LoRAs saved at step 3" in shown
    made.interrupted = True
    shown = finish_html.finish_card(made, tmp_path / "image.png", in_webui=True)
    assert "Interrupted: both LoRAs saved at step 3" in shown


def test_the_queue_shows_each_runs_settings_and_what_can_be_done_with_it() -> None:
    first, second = job("first"), job("second")
    for waiting in (first, second):
        waiting.state, waiting.step, waiting.steps = "waiting", 0, None
    second.settings = Settings("cat", "thermal image", steps=300, rank=8)
    second.image = b"an image"
    paused = job("paused")
    paused.state = "paused"
    seconds = {first.id: None, second.id: 660.0}
    rows = queue_html.queue([first, second, paused], seconds).split("<tr>")[2:]
    assert "cat · thermal image</td><td>300</td><td>8</td><td>about 11 min</td>" in rows[1]
    assert "3 of 10</td><td>default</td><td>-</td><td>paused" in rows[2]
    commands = [re.findall(r'aria-label="([^"]*)"', row) for row in rows]
    assert commands == [
        ["cancel first"], ["run next second", "edit second", "cancel second"],
        ["resume paused", "cancel paused"],
    ]  # fmt: skip


def test_pairs_are_found_by_each_word_and_sorted() -> None:
    def pair(name: str, subject: str) -> Pair:
        return Pair(name, Path("c"), Path("s"), f"sks {subject}", "ink style", "m1", "9", "base")

    newest_first = [pair("b", "Fox"), pair("A", "cat"), pair("c", "fox")]

    def names(search: str, sort: str) -> list[str]:
        return [found.name for found in pair_html.select(newest_first, search, sort)]

    assert names("", "newest first") == ["b", "A", "c"]
    assert names("fox INK", "newest first") == ["b", "c"]
    assert names("", "name") == ["A", "b", "c"]
    assert names("fox oil", "name") == []


def test_the_edit_of_a_prompt_has_both_loras_and_a_weight_of_0_for_the_unused() -> None:
    pair = Pair("x", Path("x_content.safetensors"), Path("x_style.safetensors"), "sks cat",
                "mosaic style", "unziplora", "600", "sdxl")  # fmt: skip
    edit = json.loads(pair_html.prompt_edit(pair, "content", 0.7500000001, 1.0, toggle=True))
    assert edit == {
        "content": {"name": "x_content", "trigger": "sks cat", "weight": 0.75},
        "style": {"name": "x_style", "trigger": "mosaic style", "weight": 0},
        "toggle": True,
    }


def test_an_action_gives_its_value_or_its_error_in_words(capsys: Any) -> None:
    def fail(error: Exception) -> str:
        raise error

    assert attempt(lambda: 3) == (3, "")
    value, problem = attempt(lambda: fail(InvalidInput("Wrong <b>. Mend it.")))
    assert value is None
    assert "Wrong &lt;b&gt;. Mend it." in problem
    assert 'role="alert"' in problem
    assert "Unexpected error (KeyError: &#x27;x&#x27;). Try again" in message_from(
        lambda: fail(KeyError("x"))
    )
    assert "Traceback" in capsys.readouterr().err
    assert 'role="status"' in message_from(lambda: "Done.")


@pytest.mark.parametrize("text", [None, "", "no json", "[1]", "[" * 100_000])
def test_a_request_that_no_page_of_ours_sends_is_refused(text: str | None) -> None:
    with pytest.raises(InvalidInput, match="Reload it"):
        parse_request(text)


@pytest.mark.parametrize(
    "architecture", ["sdxl", "ssd-1b", "vega", "mini", "koala-1b", "koala-700m"]
)
def test_every_attention_group_of_the_family_has_a_plain_name_of_its_own(architecture: str) -> None:
    groups = list(family()[architecture].groups)
    names = plain_names(groups)
    assert list(names) == groups
    assert len(set(names.values())) == len(groups)
    assert not any("block" in name for name in names.values())
