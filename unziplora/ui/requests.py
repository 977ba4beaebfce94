"""What buttons inside HTML request (docs/ui-protocol.md): for each part of the page that answers
there is a hidden button of gradio, which page.js presses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import gradio as gr

from unziplora.ui.gradio_compat import when

To = Literal[
    "train", "edit", "results", "use", "card", "draw", "start", "pick", "weights", "merged"
]

Listing = Literal["results", "combine"]  # the tabs that have lists


class Requests:
    """The hidden buttons; made outside the tabs, of which gradio 6 draws each once it is opened."""

    def __init__(self) -> None:
        self._buttons = {to: gr.Button(elem_id=f"uz_ask_{to}") for to in get_args(To)}
        self._lists = {tab: gr.Button(elem_id=f"uz_list_{tab}") for tab in get_args(Listing)}

    def at_sight(self, listing: Listing, tab: Any) -> tuple[Any, Any]:
        """The events at which a tab reads its lists: its selection, and page.js where the list is
        still empty although the tab is in sight."""
        return tab.select, self._lists[listing].click

    def answer(
        self,
        to: To,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        at: int = 0,
        **options: Any,
    ) -> Any:
        """Sets up who answers, and gives the event. at: which of the inputs, a hidden field of
        text, gets the request. options: as of `when`."""
        # without the outputs' values, which gradio 3 sends along
        js = (
            f"(...values) => {{ values = values.slice(0, {len(inputs)}); "
            f"values[{at}] = window.unziplora.requests['{to}']; return values; }}"
        )
        event = when(self._buttons[to].click, function, list(inputs), list(outputs), js=js,
                     **options)  # fmt: skip
        # also after an error: the next request is waiting
        answered = f"() => {{ window.unziplora.answered('{to}'); return []; }}"
        when(event.then, None, None, None, js=answered)
        return event
