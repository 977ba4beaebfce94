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

from unziplora.app.job_queue import Job
from unziplora.app.service import Service
from unziplora.lora.pair import Pair
from unziplora.training.events import Message, Previewed, Started, StepDone
from unziplora.training.memory_forecast import Forecast
from unziplora.training.memory_plans import PLANS
from unziplora.ui import pair_html as cards
from unziplora.ui import run_html as render

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
    shown = render.headline(job())
    assert "3 of 10 steps" in shown
    assert "6:10 left" in shown
    assert "loss 0.061" in shown  # of the last 25 steps
    assert 'aria-valuenow="30"' in shown
    assert render.curves(job()).count("<polyline") == 3


def test_what_ended_last_is_shown_and_not_what_was_cancelled_or_begun_later(
    host: Any, tmp_path: Path
) -> None:
    service = Service(lambda: host, lambda: tmp_path)
    assert service.jobs.shown() is None
    for name, state, ended in (("resumed", "stopped", 9.0), ("earlier", "completed", 5.0),
                               ("no-turn", "cancelled", 0.0)):  # fmt: skip
        made = job(name)
        made.state, made.ended = state, ended  # type: ignore[assignment]
        service.jobs._known[made.id] = made
    shown = service.jobs.shown()
    assert shown is not None
    assert shown.name == "resumed"


def test_curves_grow_to_the_right_and_move_nothing_that_is_drawn() -> None:
    earlier, later = (render.curves(job(steps=steps)) for steps in (2, 3))
    points = [re.findall(r'uz-content" points="([^"]*)"', curves)[0] for curves in (earlier, later)]
    assert points[1].startswith(points[0])


def test_before_the_first_run_it_says_so() -> None:
    assert "No run yet" in render.headline(None)


def test_a_preview_that_is_gone_leaves_its_place_empty(tmp_path: Path) -> None:
    made = job()
    Image.new("RGB", (8, 8)).save(tmp_path / "base.png")
    names = ("base", "content", "style", "both")
    made.note(Previewed(3, {name: tmp_path / f"{name}.png" for name in names}))
    shown = render.images(made)
    assert shown.count("<img") == 1
    assert shown.count("uz-blank") == 3
    assert "after step 3" in shown


def test_what_users_and_files_say_is_inert() -> None:
    evil = job(EVIL)
    evil.note(Message(EVIL))
    evil.error = EVIL
    pair = Pair(EVIL, Path("c"), Path("s"), EVIL, EVIL, EVIL, EVIL, EVIL)
    for shown in (
        render.headline(evil),
        render.notes(evil),
        render.queue([Job(EVIL, evil.begin, evil.again)]),
        cards.pairs([pair]),
        cards.runs({EVIL: Path("p")}),
        render.message(EVIL, error=True),
    ):
        assert EVIL not in shown
        assert "&lt;script&gt;" in shown


def test_a_button_says_what_it_asks_for_in_a_quoted_attribute() -> None:
    name = 'it\'s "quoted" & <b>'
    shown = render.button("Resume", "results", {"do": "resume", "name": name}, f"resume {name}")
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
    assert cards.prompt(pair, use, content, style) == expected


@pytest.mark.parametrize(
    ("free", "seconds", "said"),
    [
        (10.4, None, "needs about 9.1 GB, 10.4 GB free: plan checkpoint"),
        (None, 660.0, "needs about 9.1 GB: plan checkpoint · about 11 min"),
        (8.0, 40.0, "needs about 9.1 GB, 8.0 GB free: plan checkpoint, which may not fit "
                    "· about 40 s"),
    ],
)  # fmt: skip
def test_the_estimate_says_need_what_is_free_plan_and_time(
    free: float | None, seconds: float | None, said: str
) -> None:
    needs = {"full": 13.5, "checkpoint": 9.1}
    expected = Forecast("sdxl", 1024, 64, needs, free, PLANS["checkpoint"])
    assert f">{said}<" in render.estimate(expected, seconds)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_a_time_to_come_is_told_roughly(seconds: float, said: str) -> None:
    assert render.roughly(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (370, "6:10"), (3970, "1:06:10")])
def test_durations_read_as_on_a_clock(seconds: float, said: str) -> None:
    assert render.duration(seconds) == said


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_smoothing_stays_between_the_values(values: list[float]) -> None:
    out = render.smoothed(values)
    assert len(out) == len(values)
    assert min(values) - 1e-9 <= min(out)
    assert max(out) <= max(values) + 1e-9
