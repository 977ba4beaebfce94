"""Walks that repeat one proof in many places: a part of the cases in each place, so that every
place and every case is seen; every case in every place with UNZIPLORA_LONG_TESTS=1."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

LONG = "UNZIPLORA_LONG_TESTS" in os.environ
Case = TypeVar("Case")


def by_turns(cases: Iterable[Case], place: int, count: int) -> list[Case]:
    """`count` of the cases for the place of this number; the next place continues after them."""
    every = list(cases)
    if LONG or count >= len(every):
        return every
    return [every[(place * count + i) % len(every)] for i in range(count)]
