"""Numbers of the command line, refused where they are none that can be meant: argparse's types."""

from __future__ import annotations

import argparse
import math

MOST_SEED = 2**63 - 10_000  # torch takes 64 bits; each image of a sheet has the next seed


def seed(text: str) -> int:
    """A whole number that is a seed everywhere."""
    return int(number(text, int, 0, MOST_SEED))


def image_steps(text: str) -> int:
    """Of sampling."""
    return int(number(text, int, 1, 1000))


def port(text: str) -> int:
    """Where a server can listen; 0: any that is free."""
    return int(number(text, int, 0, 65535))


def count(text: str) -> int:
    """How many of something, which may be none."""
    return int(number(text, int, 0, 100_000))


def finite(text: str) -> float:
    """A guidance scale."""
    return number(text, float, 0, 1000)


def number(text: str, kind: type[int] | type[float], low: float, high: float) -> float:
    """Raises argparse's error unless text is a number from low to high."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from {low} to {high}")
    return value
