"""python -m benchmarks.trust: tries hard to break it, and says what happened.

--part kills faults shortages events parsers api page endurance    which (all)
--json FILE    the figures as data
--minutes M    bound of the whole; parts that do not fit are left out and said to be
--quick        a tenth of the cases
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.trust import endurance, faults, fuzz, fuzz_web, shortages
from benchmarks.trust.small import host_maker

Part = Callable[[Path, float], dict[str, Any]]
MINUTES = 120.0


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)  # tiny tensors: more threads cost more than they give
    share, until = 0.1 if given.quick else 1.0, time.monotonic() + 60 * given.minutes
    told: dict[str, Any] = {"machine": machine(), "share": share, "parts": {}}
    broken = 0
    for name in given.part or PARTS:
        if time.monotonic() > until:
            print(f"{name}: left out, the {given.minutes:g} minutes are over")
            told["parts"][name] = None
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            results = PARTS[name](Path(folder), share)
        for case, result in results.items():
            found = asdict(result)
            findings = found["findings"]
            broken += len(findings)
            numbers = {key: value for key, value in found.items() if key != "findings"}
            print(f"{case}: {numbers}, {len(findings)} findings", flush=True)
            for finding in findings[:20]:
                print(f"    {finding}")
            told["parts"].setdefault(name, {})[case] = found
        print(f"  ({name}: {time.monotonic() - began:.0f} s)", flush=True)
        if given.json:
            given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if broken else 0


def _kills(folder: Path, share: float) -> dict[str, Any]:
    from benchmarks.trust import kills  # loads what is forked

    return {"kills": kills.run(round(200 * share), folder)}


def _faults(folder: Path, share: float) -> dict[str, Any]:
    every = 1 if share == 1 else 8
    make, results = host_maker(), {}
    for kind in faults.KINDS:
        results[f"faults, {kind}"] = faults.run(make, _made(folder, kind), [kind], every)
    return results


def _shortages(folder: Path, share: float) -> dict[str, Any]:
    calls = [1, 2, 3, 4, 5] if share == 1 else [2]
    make, results = host_maker(), {}
    for place in shortages.PLACES:
        where = _made(folder, place)
        results[f"memory, {place}"] = shortages.memory(
            make, where, [place], calls, ["full", "auto"]
        )
    return results


def _events(folder: Path, share: float) -> dict[str, Any]:
    return {"listeners": shortages.listeners(host_maker(), folder, 1 if share == 1 else 6)}


def _parsers(folder: Path, share: float) -> dict[str, Any]:
    results = {}
    for name, cases in fuzz.PARSERS.items():
        count = 200 if cases is fuzz.resumes else 20_000
        results[f"input, {name}"] = fuzz.run(cases, round(count * share), _made(folder, name))
    return results


def _api(folder: Path, share: float) -> dict[str, Any]:
    return {"API": fuzz_web.api(round(500 * share), host_maker(), folder)}


def _page(folder: Path, share: float) -> dict[str, Any]:
    return {"page": fuzz_web.page(round(500 * share), host_maker(), folder)}


def _endurance(folder: Path, share: float) -> dict[str, Any]:
    return {"endurance": endurance.run(round(5000 * share), host_maker(), folder)}


PARTS: dict[str, Part] = {
    "kills": _kills,
    "faults": _faults,
    "shortages": _shortages,
    "events": _events,
    "parsers": _parsers,
    "api": _api,
    "page": _page,
    "endurance": _endurance,
}


def _made(folder: Path, name: str) -> Path:
    made = folder / name.replace(" ", "-").replace("'", "")
    made.mkdir()
    return made


def _arguments() -> argparse.Namespace:
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument("--part", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="M")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
