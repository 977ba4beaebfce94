"""What the page shows of a run, and that nothing a user typed becomes HTML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unziplora.jobs import Job
from unziplora.service import Pair
from unziplora.training.events import Message, Started, StepDone
from unziplora.ui import render

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
    shown = render.progress(job())
    assert "3 / 10" in shown
    assert "6:10 left" in shown
    assert "loss 0.033" in shown
    assert 'aria-valuenow="30"' in shown
    assert shown.count("<polyline") == 3


def test_before_the_first_run_it_says_so() -> None:
    assert "No run yet" in render.progress(None)


def test_what_users_and_files_say_is_inert() -> None:
    evil = job(EVIL)
    evil.note(Message(EVIL))
    evil.error = EVIL
    pair = Pair(EVIL, Path("c"), Path("s"), EVIL, EVIL, EVIL, EVIL, EVIL)
    for shown in (
        render.progress(evil),
        render.queue([Job(EVIL, evil.begin, evil.again)]),
        render.pairs([pair]),
        render.message(EVIL, error=True),
    ):
        assert EVIL not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("content", "style", "expected"),
    [
        (1.0, 1.0, "a sks cat in mosaic style <lora:x_content:1> <lora:x_style:1>"),
        (0.8, 0.0, "a sks cat <lora:x_content:0.8>"),
        (0.0, 1.0, "an image in mosaic style <lora:x_style:1>"),
        (0.0, 0.0, ""),
    ],
)
def test_the_prompt_calls_what_has_a_weight(content: float, style: float, expected: str) -> None:
    pair = Pair("x", Path("x_content.safetensors"), Path("x_style.safetensors"), "sks cat",
                "mosaic style", "unziplora", "600", "sdxl")  # fmt: skip
    assert render.tags(pair, content, style) == expected


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (370, "6:10"), (3970, "1:06:10")])
def test_durations_read_as_on_a_clock(seconds: float, said: str) -> None:
    assert render.duration(seconds) == said


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_smoothing_stays_between_the_values(values: list[float]) -> None:
    out = render.smoothed(values)
    assert len(out) == len(values)
    assert min(values) - 1e-9 <= min(out)
    assert max(out) <= max(values) + 1e-9
