"""Memory that runs out and listeners that raise: some places here; every call and event in
`python -m benchmarks.reliability`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.shortages import PLACES, listeners, memory
from benchmarks.reliability.small import SETTINGS, image
from benchmarks.results import model_checksum
from tests.waiting import until
from unziplora.app.job import ENDED
from unziplora.app.service import Service


@pytest.mark.parametrize(
    ("places", "call", "plan"),
    [(list(PLACES), 1, "full"), (["forward", "update", "saving the state"], 3, "auto")],
    ids=["everywhere", "later"],
)
def test_where_memory_runs_out_training_goes_on_or_stops_with_its_state(
    places: list[str], call: int, plan: str, make_host: Callable[[], Any], tmp_path: Path
) -> None:
    result = memory(make_host, tmp_path, places, [call], [plan])
    assert not result.findings, "\n".join(result.findings)
    assert result.happened == len(places)


def test_whoever_reads_the_events_may_raise_or_go_away_at_any_of_them(
    make_host: Callable[[], Any], tmp_path: Path
) -> None:
    result = listeners(make_host, tmp_path, every=6)
    assert not result.findings, "\n".join(result.findings)
    assert result.resumed >= 4


def test_a_listener_of_the_queue_that_raises_at_every_event_ends_no_run(
    host: Any, tmp_path: Path
) -> None:
    service = Service(lambda: host, lambda: tmp_path / "out")
    before = model_checksum(host)

    def broken(event: Any) -> None:
        raise MemoryError(type(event).__name__)

    service.jobs.on_event = broken
    image().save(tmp_path / "image.png")
    given = {**SETTINGS, "subject": "cat", "style": "ink"}
    job = service.start(tmp_path / "image.png", given)
    until(lambda: job.state in ENDED)
    assert job.state == "completed"
    assert model_checksum(host) == before


def test_a_page_that_cannot_draw_a_run_does_not_disturb_it(
    host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    from benchmarks.reliability.fuzz_web import _functions
    from unziplora.ui import run_html as render
    from unziplora.ui.page import build

    service = Service(lambda: host, lambda: tmp_path / "out")
    ((news, fields),) = [
        (f, given) for name, f, given in _functions(build(service)) if name == "news"
    ]

    def broken(job: Any) -> str:
        raise MemoryError("no image")

    monkeypatch.setattr(render, "curves", broken)
    image().save(tmp_path / "image.png")
    given = {**SETTINGS, "subject": "cat", "style": "ink"}
    job = service.start(tmp_path / "image.png", given)
    while job.state not in ENDED:
        news(None, *(field.value for field in fields[1:]))
        time.sleep(0.02)
    assert job.state == "completed"
