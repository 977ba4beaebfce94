"""The page as its tests use it: by what is on it, whichever gradio drew it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.waiting import until

HANGS = 180_000  # milliseconds: no single thing that works takes so long, on any computer

LISTS = {"Results": "cards", "Combine": "picks"}  # by tab


class Page:
    """One visitor. errors: what the browser's own console complained of, and requests to others."""

    def __init__(self, page: Any, url: str, shots: Path) -> None:
        self.page, self.url, self._shots = page, url, shots
        self.errors: list[str] = []
        self._events: list[str] = []  # the last of them, for a failed test's report
        page.set_default_timeout(HANGS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self._note(f"{said.type}: {said.text}"))
        page.on("framenavigated", lambda frame: self._note(f"opened {frame.url}"))
        page.on(
            "requestfailed", lambda request: self._note(f"failed {request.url} {request.failure}")
        )
        page.route("**/*", self._route)

    def _route(self, route: Any) -> None:
        asked = route.request.url
        if urlsplit(asked).scheme in ("data", "blob") or asked.startswith(self.url):
            route.continue_()
            return
        if "iframeResizer" not in asked:
            self.errors.append(f"asked {asked}")
        route.abort()

    def open(self, query: str = "") -> None:
        self.page.goto(self.url + query, wait_until="domcontentloaded")
        self.page.wait_for_selector("#uz_train")
        self.page.wait_for_function("() => window.unziplora !== undefined")

    def tab(self, name: str) -> None:
        # gradio 3 gives them no role; 6 has a second, unseen button of each, to measure it
        tabs = self.page.locator("#uz_tabs button[role=tab], #uz_tabs .tab-nav button:not([role])")
        tabs.filter(has_text=re.compile(rf"^\s*{name}\s*$")).first.click()
        if name in LISTS:  # which moves what is below it, also while that is clicked
            self.page.wait_for_selector(f"#uz_{LISTS[name]} :is(.uz-quiet, .uz-cards)")

    def fill(self, field: str, text: str) -> None:
        self.page.locator(f"#uz_{field} :is(input, textarea)").first.fill(text)

    def value(self, field: str) -> str:
        said: str = self.page.locator(f"#uz_{field} :is(input, textarea)").first.input_value()
        return said

    def holds(self, field: str, text: str) -> None:
        """Waits until a field has this text."""
        self.page.wait_for_function(
            "([field, text]) => document.querySelector(field)?.value === text",
            arg=[f"#uz_{field} :is(input, textarea)", text],
        )

    def click(self, name: str) -> None:
        self.page.locator(f"#uz_{name}").first.click()

    def tab_to(self, name: str) -> None:
        """Presses Tab until that button has the focus."""
        for _ in range(40):
            if self.page.locator(f"#uz_{name}:focus, #uz_{name} :focus").count():
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{name} is not reached by keyboard")

    def confirm(self) -> None:
        """Presses the question's yes until the question is gone: gradio 3 loses a press in the
        moment after something was typed."""
        question = self.page.locator("#uz_answer_yes").first
        for halves in range(HANGS // 500):
            if halves % 40 == 0:
                question.click()
            self.page.wait_for_timeout(500)
            if not question.is_visible():
                return
        raise AssertionError("the question stays")

    def choose(self, field: str, option: str) -> None:
        """One of a dropdown's options, by typing it."""
        box = self.page.locator(f"#uz_{field} input").first
        box.click()
        box.fill(option)
        # gradio 3 and 4 put a tick before each, seen or not
        text = re.compile(rf"^\W*{re.escape(option)}\s*$")
        options = self.page.locator(f"#uz_{field} li, ul.options li").filter(has_text=text)
        options.first.click()

    def drop(self, field: str, path: Path) -> None:
        self.page.locator(f"#uz_{field} input[type=file]").first.set_input_files(path)

    def image(self, path: Path) -> None:
        """Into the Train tab's field, if there is none yet, and until it is shown there."""
        if self.page.locator("#uz_image img").count() == 0:
            self.drop("image", path)
            self.page.wait_for_selector("#uz_image img")

    def advanced(self, **fields: str) -> None:
        if not self.page.locator("#uz_steps").first.is_visible():
            self.page.locator("#uz_advanced").get_by_text("Advanced").first.click()
            self.page.wait_for_selector("#uz_steps")
        for field, text in fields.items():
            self.fill(field, text)

    def says(self, where: str, pattern: str) -> str:
        """Waits until an area of the page says something that matches, and gives it back."""
        area = self.page.locator(f"#uz_{where}").first
        area.filter(has_text=re.compile(pattern)).wait_for()
        text: str = area.inner_text()
        return text

    def click_until_said(self, button: str, where: str, pattern: str) -> None:
        """Presses a button until it is answered so: for what the page shows no sign of, where the
        answer to one press more is the same."""

        def answered() -> bool:
            self.click(button)
            self.page.wait_for_timeout(500)
            return bool(re.search(pattern, self.page.locator(f"#uz_{where}").first.inner_text()))

        until(answered)

    def silent(self, where: str) -> None:
        """Waits until an area of the page says nothing."""
        self.page.wait_for_function(
            "area => !document.querySelector(area).textContent.trim()", arg=f"#uz_{where}"
        )

    def state(self, *states: str) -> None:
        """Waits until the run that is shown is in one of the states."""
        wanted = ", ".join(f"#uz_live [data-state={state}]" for state in states)
        self.page.wait_for_selector(wanted)

    def ask(self, spoken: str) -> None:
        """Presses a button inside HTML, by what a screen reader says."""
        self.page.locator(f'button[aria-label="{spoken}"]').first.click()

    def menu(self, name: str, entry: str) -> None:
        """Chooses an entry of the menu on a pair's card."""
        spoken = f"{entry}: {name}"
        button = self.page.locator(f'button[aria-label="{spoken}"]').first

        def opened() -> bool:
            if not button.is_visible():  # nor once the list was read again
                self.page.locator(f'summary[aria-label="more for {name}"]').first.click()
                self.page.wait_for_timeout(500)
            return bool(button.is_visible())

        until(opened)
        button.click()

    def stop(self) -> None:
        """Stops the run that is shown, and says yes to the question."""
        self.click("stop")
        self.page.locator("#uz_stop_yes").first.click()

    def _note(self, event: str) -> None:
        self._events = [*self._events[-30:], f"{datetime.now():%X} {event}"]

    def report(self) -> str:
        """What the areas of the page say, and the last events of the browser."""
        areas = "live", "queue", "message", "results_message", "manifest_message", "away", "images"
        said = [f"{area}: {self.page.locator(f'#uz_{area}').all_inner_texts()}" for area in areas]
        return "\n".join([f"{datetime.now():%X}", *said, *self._events, *self.errors])

    def shot(self, name: str) -> None:
        self._shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._shots / f"{name}.png", full_page=True)
