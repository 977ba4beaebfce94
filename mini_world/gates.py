"""What the shipped miniature draws, before anything is judged on it.

    python -m mini_world.gates [--model FILE] [--json FILE]

The world's own networks look at what it draws from plain prompts: the class without a style, the
style, the colour; and the block probe counts the attention groups that carry something.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mini_world.block_probe import active, as_text, measure, standard_pairs
from mini_world.captions import article
from mini_world.emoji.gates import GATES as OF_TRAINING
from mini_world.emoji.gates import class_share, named, style_share
from mini_world.emoji.probes import judge as shipped_judge
from mini_world.emoji.things import COLOURS, CORE_KINDS
from mini_world.probes import Judge
from mini_world.sampler import Sampler
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost

GATES = {
    "class": OF_TRAINING["class"], "style": OF_TRAINING["style"], "colour": 0.75, "active groups": 4
}  # fmt: skip

Draw = Callable[[list[str], int], np.ndarray]


def colour_share(judge: Judge, draw: Draw) -> float:
    """Of "a red car": is its main colour red, one of ten?"""
    shares = []
    for seed, colour in enumerate(COLOURS):
        images = draw([article(f"{colour} {kind}") for kind in CORE_KINDS], seed)
        shares.append(named([colour] * len(CORE_KINDS), judge.colours(images)))
    return float(np.mean(shares))


def gates(sampler: Sampler, judge: Judge) -> dict[str, float]:
    def draw(prompts: list[str], seed: int) -> np.ndarray:
        return sampler.images(prompts, [100 * seed + number for number in range(len(prompts))])

    shifts = measure(sampler, judge, standard_pairs())
    print(as_text(shifts))
    return {
        "class": class_share(judge, draw),
        "style": style_share(judge, draw),
        "colour": colour_share(judge, draw),
        "active groups": len(active(shifts)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = gates(Sampler(StandaloneHost.open(args.model)), shipped_judge())
    for name, value in found.items():
        word = "passed" if value >= GATES[name] else "FAILED"
        print(f"{name:14} {value:6.2f}  (gate {GATES[name]:g})  {word}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return int(any(value < GATES[name] for name, value in found.items()))


if __name__ == "__main__":
    raise SystemExit(main())
