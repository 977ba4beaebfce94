"""Timing on a machine that is not quiet: alternating trials, medians, and their spread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

import torch


def clock() -> float:
    """Seconds: of this process's own processor time on a CPU, so that other programs are not
    counted; of the wall on a GPU, after its work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(work: Callable[[], Any]) -> float:
    began = clock()
    work()
    return clock() - began


def alternating(works: Mapping[str, Callable[[], Any]], trials: int) -> dict[str, list[float]]:
    """Seconds of each work in each trial; one trial runs all of them in turn, after one that does
    not count. Each is printed to stderr as it comes: at full size a trial takes minutes."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for trial in range(trials + 1):
        for name, work in works.items():
            taken = seconds(work)
            of = f"trial {trial} of {trials}" if trial else "not counted"
            print(f"{of}: {name} {taken:.3f} s", file=sys.stderr, flush=True)
            if trial:
                times[name].append(taken)
    return times


def ratio(over: list[float], under: list[float]) -> dict[str, Any]:
    """The median of the trials' ratios, and their quartiles."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "median": round(median(ratios), 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "trials": len(ratios),
    }
