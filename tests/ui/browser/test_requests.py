"""Which presses of buttons inside HTML page.js passes on, and when: docs/ui-protocol.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT

PATIENCE = 30_000  # ms, how long a lost answer is waited for
BUTTONS = "".join(
    f"<button id={name} data-to=results data-uz='{name}'>{name}</button>" for name in "abc"
)
SENT = """() => {
    window.sent = [];
    document.querySelector('#uz_ask_results').onclick =
        () => window.sent.push(window.unziplora.requests.results);
}"""


@pytest.fixture
def buttons(browser: Any) -> Iterator[Any]:
    """A page with three requests to one handler, and a clock that stands still."""
    page = browser.new_page()
    page.clock.install()
    page.set_content(BUTTONS + "<button id=uz_ask_results hidden></button>")
    page.evaluate(f"({(ROOT / 'unziplora/ui/page.js').read_text('utf-8').strip()})()")
    page.evaluate(SENT)
    yield page
    page.close()


def answer(page: Any) -> list[str]:
    """Gives one answer, and returns what was sent until after it."""
    page.evaluate("() => window.unziplora.answered('results')")
    page.clock.run_for(10)
    return sent(page)


def sent(page: Any) -> list[str]:
    found: list[str] = page.evaluate("() => window.sent")
    return found


def test_requests_wait_for_each_other_and_a_double_click_is_one(buttons: Any) -> None:
    for name in "aabcb":
        buttons.click(f"#{name}")
    assert sent(buttons) == ["a"]
    assert answer(buttons) == ["a", "b"]
    assert answer(buttons) == ["a", "b", "c"]
    assert answer(buttons) == ["a", "b", "c"]
    buttons.click("#b")
    assert sent(buttons) == ["a", "b", "c", "b"]


def test_after_a_lost_answer_the_next_request_is_sent(buttons: Any) -> None:
    buttons.click("#a")
    buttons.click("#b")
    buttons.clock.run_for(PATIENCE - 1000)
    assert sent(buttons) == ["a"]
    buttons.clock.run_for(2000)
    assert sent(buttons) == ["a", "b"]


def test_a_late_answer_is_not_taken_for_that_of_the_next_request(buttons: Any) -> None:
    for name in "abc":
        buttons.click(f"#{name}")
    buttons.clock.run_for(PATIENCE + 1000)
    assert sent(buttons) == ["a", "b"]
    assert answer(buttons) == ["a", "b"]  # a's
    assert answer(buttons) == ["a", "b", "c"]


def test_one_lost_answer_delays_one_request_only(buttons: Any) -> None:
    for name in "ab":
        buttons.click(f"#{name}")
    buttons.clock.run_for(PATIENCE + 1000)
    assert answer(buttons) == ["a", "b"]  # b's, taken for a's
    buttons.clock.run_for(PATIENCE)
    for name in "cab":
        buttons.click(f"#{name}")
        assert sent(buttons)[-1] == name
        answer(buttons)


def test_a_list_that_stays_empty_is_asked_for_again(browser: Any) -> None:
    page = browser.new_page()
    page.clock.install()
    page.set_content(
        "<div id=uz_tab_results><div id=uz_cards> </div></div><button id=uz_list_results></button>"
        "<div id=uz_tab_combine hidden><div id=uz_picks></div></div>"
        "<button id=uz_list_combine></button>"
    )
    page.evaluate(f"({(ROOT / 'unziplora/ui/page.js').read_text('utf-8').strip()})()")
    page.evaluate(
        "() => { window.asked = []; for (const one of document.querySelectorAll('button'))"
        " one.onclick = () => window.asked.push(one.id); }"
    )
    page.clock.run_for(2500)
    assert page.evaluate("() => window.asked") == []
    page.clock.run_for(1000)
    assert page.evaluate("() => window.asked") == ["uz_list_results"]
    page.evaluate(
        "() => document.querySelector('#uz_cards').innerHTML = '<p class=uz-quiet>No pair yet.</p>'"
    )
    page.clock.run_for(20_000)
    assert page.evaluate("() => window.asked") == ["uz_list_results"]
    page.close()
