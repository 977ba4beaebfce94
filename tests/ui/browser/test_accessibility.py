"""axe-core's rules on every tab: UNZIPLORA_AXE names its axe.min.js (`npm pack axe-core`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.ui.browser.conftest import Served
from tests.ui.browser.pages import Page

# what gradio itself draws, in every one of its pages
GRADIOS_OWN = {
    "label-content-name-mismatch",  # its place to drop an image
    "nested-interactive",  # its file fields: a button around an input
    "aria-input-field-name",  # its sliders' and lists' inner parts
    "scrollable-region-focusable",
}


@pytest.fixture(scope="module")
def axe() -> str:
    path = os.environ.get("UNZIPLORA_AXE")
    if not path:
        pytest.skip("UNZIPLORA_AXE does not name axe.min.js")
    return Path(path).read_text("utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_tab_has_a_serious_fault(
    page: Page, served: Served, trained: Any, axe: str, theme: str
) -> None:
    trained("one")
    page.open(f"?__theme={theme}")
    page.page.evaluate(axe)
    faults = {}
    for tab in ("Train", "Results", "Combine", "Inspect"):
        page.tab(tab)
        if tab == "Train":
            page.advanced()
        if tab == "Results":
            page.says("cards", "one")
            page.page.locator("#uz_cards summary").first.click()
        if tab == "Combine":
            page.choose("content_of", "one")
            page.choose("style_of", "one")
            page.says("overlap", "overlap")
        found = page.page.evaluate(
            """async () => (await axe.run('#uz_tabs', {resultTypes: ['violations']})).violations
                .filter(v => ['serious', 'critical'].includes(v.impact))
                .map(v => [v.id, v.nodes.map(n => n.html.slice(0, 160))])"""
        )
        faults[tab] = [fault for fault in found if fault[0] not in GRADIOS_OWN]
    assert not any(faults.values()), faults
