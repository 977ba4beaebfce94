"""Someone at a real WebUI's page, in headless Chromium."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.hosts.programs import WebUI

SHOTS = Path(os.environ.get("UNZIPLORA_SHOTS", "build/screenshots"))
HANGS = 300_000  # milliseconds
# the error messages in the corner of the page, kept when they are gone
TOASTS = """window.toasts = [];
new MutationObserver(() => {
    for (const toast of document.querySelectorAll('.toast-body.error')) {
        if (!toast.dataset.seen) window.toasts.push(toast.textContent);
        toast.dataset.seen = 1;
    }
}).observe(document, {subtree: true, childList: true});"""


class Visitor:
    """Someone at the WebUI's page."""

    def __init__(self, browser: Any, webui: WebUI) -> None:
        self.webui, self.page = webui, browser.new_page(viewport={"width": 1300, "height": 1100})
        self.page.set_default_timeout(HANGS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.add_init_script(TOASTS)
        self.page.goto(webui.url)
        self.tab("UnZipLoRA")

    def tab(self, name: str, inside: str = "#tabs") -> None:
        self.page.locator(f"{inside} button").filter(has_text=name).first.click()

    def field(self, elem_id: str) -> Any:
        return self.page.locator(f"#{elem_id} textarea, #{elem_id} input").first

    def shot(self, name: str) -> None:
        folder = SHOTS / self.webui.kind
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)

    def prompt(self) -> str:
        return str(self.field("txt2img_prompt").input_value())
