"""python -m benchmarks.reliability: tries hard to break it, and says what happened.

--part NAME…   kills signals faults disk cleanup shortages events descriptors parsers api page audit
               endurance; all without it
--share S      of the cases, 0.01 to 1 (1); --quick is a tenth
--json FILE    the figures as data, after each case, beside those that are in it
--rest         leaves out what FILE has already, so that a long try is made in pieces
--minutes M    bound of the whole: what would begin later is left out, and listed as such
--table        prints FILE's figures as a table, and tries nothing
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability import (
    audit,
    cleanup,
    descriptors,
    endurance,
    faults,
    full_disk,
    fuzz,
    fuzz_web,
    shortages,
)
from benchmarks.reliability.small import host_maker
from benchmarks.results import machine
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.training.memory_plans import PLANS

Case = tuple[str, Callable[[], Any]]
MINUTES = 120.0


def main() -> int:
    given = _arguments()
    figures = _figures(given.json, given.share)
    if given.table:
        print(_table(figures))
        return 0
    torch.set_num_threads(1)  # tiny tensors: more threads cost more than they give
    # a shell starts what it runs in the background with SIGINT ignored, which runs would inherit
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            case
            for part in given.part or PARTS
            for case in PARTS[part](_made(Path(folder), part), given.share)
        ]
        done = figures["results"] if given.rest else {}
        left_out = _try([case for case in cases if case[0] not in done], given, figures)
    for name in left_out:
        print(f"{name}: left out, the {given.minutes:g} minutes are over")
    found = [figures["results"].get(name, {"findings": []})["findings"] for name, _ in cases]
    return 1 if any(found) else 0


def _try(cases: list[Case], given: argparse.Namespace, figures: dict[str, Any]) -> list[str]:
    """What there was no time for."""
    began = time.monotonic()
    for number, (name, make) in enumerate(cases):
        passed = time.monotonic() - began
        if passed > 60 * given.minutes:
            return [name for name, _ in cases[number:]]
        rest = passed / max(1, number) * (len(cases) - number) / 60
        left = f", about {rest:.0f} min left" if number else ""
        print(f"[{number + 1} of {len(cases)}, {passed / 60:.1f} min{left}] {name}", flush=True)
        at = time.monotonic()
        found = asdict(make())
        seconds = time.monotonic() - at
        _show(name, found, seconds)
        figures["results"][name] = {**found, "seconds": round(seconds, 1), "share": given.share}
        if given.json:
            given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return []


def _figures(path: Path | None, share: float) -> dict[str, Any]:
    if path is not None and path.is_file():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    return {"machine": machine(), "results": {}}


def _show(name: str, found: dict[str, Any], seconds: float) -> None:
    findings = found["findings"]
    print(f"{name}: {_numbers(found)}; {len(findings)} findings; {seconds:.0f} s", flush=True)
    for finding in findings[:20]:
        print(f"    {finding}")


def _numbers(found: dict[str, Any]) -> str:
    plain = {k: v for k, v in found.items() if k not in ("findings", "seconds", "share")}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plain.items())


def _table(figures: dict[str, Any]) -> str:
    lines = ["| what | counts | findings |", "|---|---|---|"]
    for name, found in figures["results"].items():
        lines.append(f"| {name} | {_numbers(found)} | {len(found['findings'])} |")
    return "\n".join(lines)


def _kills(folder: Path, share: float) -> Iterator[Case]:
    from benchmarks.reliability import kills  # loads what is forked

    yield "kills", lambda: kills.run(round(200 * share), folder)


def _signals(folder: Path, share: float) -> Iterator[Case]:
    from benchmarks.reliability import signalled, signals  # loads what is forked

    calls = signals.CALLS if share > 0.5 else signals.CALLS[:1]
    for number, what in itertools.product(signals.SIGNALS, signalled.MOMENTS):
        where = _made(folder, f"{number.name} {what}")
        moments = signalled.MOMENTS[what]
        name = f"signals, {number.name} while it {what}"
        yield name, partial(signals.at_moments, where, number, moments, calls)
    for number in signals.SIGNALS:
        where, count = _made(folder, number.name), max(2, round(30 * share))
        yield (
            f"signals, {number.name} at random",
            partial(signals.at_random, where, number, count),
        )


def _faults(folder: Path, share: float) -> Iterator[Case]:
    make = host_maker()
    for kind in faults.KINDS:
        where = _made(folder, kind)
        yield f"faults, {kind}", partial(faults.run, make, where, kind, _every(share, 8))


def _disk(folder: Path, share: float) -> Iterator[Case]:
    yield "a full disk", lambda: full_disk.run(folder, round(60 * share))


def _cleanup(folder: Path, share: float) -> Iterator[Case]:
    """Every plan and error, on plain weights and on Forge's, with the memory full or not."""
    make, every = host_maker(), _every(share, 10)
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
    every = _every(share, 6)
    yield "listeners", lambda: shortages.listeners(host_maker(), folder, every)


def _descriptors(folder: Path, share: float) -> Iterator[Case]:
    rounds = max(2, round(40 * share))
    yield "open files", lambda: descriptors.run(host_maker(), folder, rounds)


def _parsers(folder: Path, share: float) -> Iterator[Case]:
    for name, cases in fuzz.PARSERS.items():
        count = round(share * (200 if cases is fuzz.resumes else 20_000))
        yield f"input, {name}", partial(fuzz.run, cases, count, _made(folder, name))


def _api(folder: Path, share: float) -> Iterator[Case]:
    yield "API", lambda: fuzz_web.api(round(500 * share), host_maker(), folder)


def _page(folder: Path, share: float) -> Iterator[Case]:
    yield "page", lambda: fuzz_web.page(round(500 * share), host_maker(), folder)


def _audit(folder: Path, share: float) -> Iterator[Case]:
    make = host_maker()
    yield "audit, a run and its pair", lambda: audit.life(make, folder / "life")
    for what in ("api", "page"):
        count = round(500 * share)
        yield (
            f"audit, {what} under fire",
            partial(audit.under_fire, what, count, make, folder / what),
        )


def _endurance(folder: Path, share: float) -> Iterator[Case]:
    yield "endurance", lambda: endurance.run(round(5000 * share), _miniature, folder)


def _miniature() -> Any:
    return StandaloneHost.open(mini.MODEL)


PARTS: dict[str, Callable[[Path, float], Iterator[Case]]] = {
    "kills": _kills,
    "signals": _signals,
    "faults": _faults,
    "disk": _disk,
    "cleanup": _cleanup,
    "shortages": _shortages,
    "events": _events,
    "descriptors": _descriptors,
    "parsers": _parsers,
    "api": _api,
    "page": _page,
    "audit": _audit,
    "endurance": _endurance,
}


def _every(share: float, tenth: int) -> int:
    """Each n-th case; tenth: of a tenth of them."""
    return max(1, round(0.1 * tenth / share)) if share < 1 else 1


def _made(folder: Path, name: str) -> Path:
    made = folder / name.replace(" ", "-").replace("'", "")
    made.mkdir()
    return made


def _arguments() -> argparse.Namespace:
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument("--part", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--share", type=float, default=1.0, metavar="S")
    parser.add_argument("--quick", action="store_const", dest="share", const=0.1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="M")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
