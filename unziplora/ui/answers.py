"""What the page answers: the value of an action with its message, or why it failed."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.ui.html import message

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """The action's value and no message; where it fails, None and the reason as HTML. The trace of
    an unexpected error goes to the program's own output."""
    try:
        return action(), ""
    except UnZipLoRAError as error:
        return None, message(str(error), error=True)
    except Exception as error:  # a border: whatever failed, the page answers in words
        traceback.print_exc()
        text = (
            f"Unexpected error ({type(error).__name__}: {error}). Try again; the program's window "
            "or log has the details."
        )
        return None, message(text, error=True)


def message_from(action: Callable[[], str]) -> str:
    """The sentence that an action returns, or why it failed, as HTML."""
    text, problem = attempt(action)
    return problem or message(text or "")


def parse_request(text: str | None) -> dict[str, Any]:
    """What a button inside HTML requests (docs/ui-protocol.md). Raises InvalidInput."""
    try:
        request = json.loads(text or "")
    except (ValueError, TypeError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise InvalidInput("The page requested something unknown. Reload it.")
    return request
