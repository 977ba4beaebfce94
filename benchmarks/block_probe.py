"""Which attention group carries content and which style, measured on a model
(mini_world/block_probe.py).

    python -m benchmarks.block_probe [--model FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mini_world.block_probe import as_text, measure, standard_pairs
from mini_world.emoji.probes import judge
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sampler = Sampler(StandaloneHost.open(args.model))
    shifts = measure(sampler, judge(), standard_pairs(args.pairs))
    print(as_text(shifts))
    if args.json is not None:
        table = {group: asdict(shift) for group, shift in shifts.items()}
        args.json.write_text(json.dumps(table, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
