"""python -m benchmarks.reliability: tries hard to break it, and says what happened.

--part kills faults cleanup shortages events parsers api page endurance    which (all)
--json FILE    the figures as data
--minutes M    bound of the whole: what would begin later is left out, and said to be
--quick        a tenth of the cases
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability import cleanup, endurance, faults, fuzz, fuzz_web, shortages
from benchmarks.reliability.small import host_maker
from benchmarks.results import machine
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.training.memory_plans import PLANS

Case = tuple[str, Callable[[], Any]]
MINUTES = 120.0


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)  # tiny tensors: more threads cost more than they give
    share, until = 0.1 if given.quick else 1.0, time.monotonic() + 60 * given.minutes
    told: dict[str, Any] = {"machine": machine(), "share": share, "results": {}, "left out": []}
    broken = 0
    for part in given.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for name, make in PARTS[part](Path(folder), share):
                if time.monotonic() > until:
                    told["left out"].append(name)
                    print(f"{name}: left out, the {given.minutes:g} minutes are over")
                    continue
                began = time.monotonic()
                found = asdict(make())
                broken += len(found["findings"])
                _show(name, found, time.monotonic() - began)
                told["results"][name] = found
        if given.json:
            given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if broken else 0


def _show(name: str, found: dict[str, Any], seconds: float) -> None:
    findings = found["findings"]
    numbers = ", ".join(f"{key} {value}" for key, value in found.items() if key != "findings")
    print(f"{name}: {numbers}; {len(findings)} findings; {seconds:.0f} s", flush=True)
    for finding in findings[:20]:
        print(f"    {finding}")


def _kills(folder: Path, share: float) -> Iterator[Case]:
    from benchmarks.reliability import kills  # loads what is forked

    yield "kills", lambda: kills.run(round(200 * share), folder)


def _faults(folder: Path, share: float) -> Iterator[Case]:
    make, every = host_maker(), 1 if share == 1 else 8
    for kind in faults.KINDS:
        where = _made(folder, kind)
        yield f"faults, {kind}", partial(faults.run, make, where, [kind], every)


def _cleanup(folder: Path, share: float) -> Iterator[Case]:
    """Every plan and error, on plain weights and on Forge's, with the memory full or not."""
    make, every = host_maker(), 1 if share == 1 else 10
    for plan, error, forge in itertools.product(PLANS, cleanup.ERRORS, (False, True)):
        full = error == "a full memory"

        def unet(forge: bool = forge) -> torch.nn.Module:
            with torch.inference_mode(forge):
                small: torch.nn.Module = make().unet.half()
            return small

        name = f"cleanup, {plan}, {error}{', inference tensors' if forge else ''}"
        yield (
            name,
            partial(cleanup.run, unet, plan, error, every=every, forge=forge, full_in_between=full),
        )


def _shortages(folder: Path, share: float) -> Iterator[Case]:
    make, calls, plans = host_maker(), [1, 2, 3, 4, 5] if share == 1 else [2], ["full", "auto"]
    for place in shortages.PLACES:
        where = _made(folder, place)
        yield f"memory, {place}", partial(shortages.memory, make, where, [place], calls, plans)


def _events(folder: Path, share: float) -> Iterator[Case]:
    every = 1 if share == 1 else 6
    yield "listeners", lambda: shortages.listeners(host_maker(), folder, every)


def _parsers(folder: Path, share: float) -> Iterator[Case]:
    for name, cases in fuzz.PARSERS.items():
        count = round(share * (200 if cases is fuzz.resumes else 20_000))
        yield f"input, {name}", partial(fuzz.run, cases, count, _made(folder, name))


def _api(folder: Path, share: float) -> Iterator[Case]:
    yield "API", lambda: fuzz_web.api(round(500 * share), host_maker(), folder)


def _page(folder: Path, share: float) -> Iterator[Case]:
    yield "page", lambda: fuzz_web.page(round(500 * share), host_maker(), folder)


def _endurance(folder: Path, share: float) -> Iterator[Case]:
    yield "endurance", lambda: endurance.run(round(5000 * share), _miniature, folder)


def _miniature() -> Any:
    return StandaloneHost.open(mini.MODEL)


PARTS: dict[str, Callable[[Path, float], Iterator[Case]]] = {
    "kills": _kills,
    "faults": _faults,
    "cleanup": _cleanup,
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
