"""Waiting for what another thread or process does.

How long something takes says nothing about whether it is right. The limit is for what never comes:
the test fails after it, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HANGS = 480.0  # seconds; less than pytest's faulthandler_timeout


def until(condition: Callable[[], T], pause: float = 0.01) -> T:
    """Calls `condition` until its result is true, and returns that result."""
    end = time.monotonic() + HANGS
    while not (result := condition()):
        assert time.monotonic() < end, f"this did not come in {HANGS:.0f} seconds"
        time.sleep(pause)
    return result
