"""A real WebUI that goes away while it trains, with its page open, and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.hosts.pairs import same, tensors
from tests.hosts.programs import KINDS, WebUI, place
from tests.hosts.visitor import Visitor


@pytest.fixture(scope="module", params=KINDS)  # before the browser, which is not needed without
def kind(request: pytest.FixtureRequest) -> str:
    place(request.param)
    return str(request.param)


def test_a_run_of_a_webui_that_was_killed_is_offered_and_resumed_on_its_page(
    kind: str,
    browser: Any,
    checkpoints: list[Path],
    source_image: Path,
    tmp_path: Path,
) -> None:
    webui = WebUI(kind, tmp_path, checkpoints)
    with webui:
        whole = webui.train("undisturbed", source_image, steps=40)
        assert whole["state"] == "completed", whole
        visitor = Visitor(browser, webui)
        page = visitor.page
        webui.post("/test/slow", seconds=0.5)
        webui.hold(10)
        job = webui.start("killed", source_image, steps=40, save_minutes=0.02)
        webui.at_step(job, 6)
        page.locator('#uz_live [data-state="running"]').wait_for()
        page.locator("#uz_images img[alt='training image']").wait_for()
        page.reload()
        visitor.tab("UnZipLoRA")
        page.locator('#uz_live [data-state="running"]').wait_for()
        page.locator("#uz_images img[alt='training image']").wait_for()
    page.locator("#uz_away.uz-shown").wait_for()
    visitor.shot("server-away")
    assert not list((webui.loras).glob("killed_*"))
    # a page that asks in the wrong moment would keep Automatic1111 from starting, ours as any other
    page.goto("about:blank")
    with webui:
        page.goto(webui.url)
        visitor.tab("UnZipLoRA")
        offer = page.locator("#uz_live").get_by_text("killed").first
        offer.wait_for()
        visitor.shot("unfinished-run")
        page.locator('button[aria-label="resume killed"]').first.click()
        page.locator('#uz_live [data-state="completed"]').filter(has_text="killed").wait_for()
        visitor.shot("resumed")
        assert same(tensors(webui, "killed"), tensors(webui, "undisturbed"))
        assert not [error for error in visitor.errors if "unzip" in error.lower()]
        page.close()
