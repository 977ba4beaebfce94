"""Waiting for what another thread or process does.

There is no limit here: how long something takes says nothing about whether it is right. What hangs
is shown by pytest after ten minutes (faulthandler_timeout) and ended by tools/test.sh.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], pause: float = 0.01) -> T:
    """Calls `condition` until its result is true, and returns that result."""
    while not (result := condition()):
        time.sleep(pause)
    return result
