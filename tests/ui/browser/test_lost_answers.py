"""What the page does where gradio loses an answer: docs/ui-protocol.md."""

from __future__ import annotations

from typing import Any

from tests.ui.browser.pages import Page


def test_a_list_that_is_lost_is_asked_for_again(page: Page) -> None:
    """gradio may lose a tab's selection in the moment after the page was loaded."""
    page.open()
    emptied: list[str] = []

    def empty_the_first(route: Any) -> None:
        if emptied:
            route.continue_()
            return
        answer = route.fetch()
        given = answer.json()
        first = str(given["data"][0])
        if "No pair yet" in first or "uz-cards" in first:
            emptied.append(first)
            given["data"] = ["", *given["data"][1:]]
        route.fulfill(response=answer, json=given)

    page.page.route("**/predict*", empty_the_first)
    page.tab("Results")
    page.says("cards", "No pair yet|style")
    assert emptied
