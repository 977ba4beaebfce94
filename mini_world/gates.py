"""The gates that the miniature passes before anything is judged on it.

    python -m mini_world.gates [--model FILE] [--json FILE]

The probes look at what it draws from plain prompts: the class without a style, the style, the
colour; and the block probe counts the attention groups that carry something.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mini_world.block_probe import active, measure, standard_pairs
from mini_world.captions import article
from mini_world.probes import Judge
from mini_world.sampler import Sampler
from mini_world.scenes import COLOURS
from mini_world.world import CORE_KINDS, CORE_STYLES
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost

GATES = {"class": 0.9, "style": 0.95, "colour": 0.75, "active groups": 4}


def class_share(sampler: Sampler, judge: Judge, seeds: int = 10) -> float:
    """Of "a cat": is it a cat among all 24 classes?"""
    requested = [kind for kind in CORE_KINDS for _ in range(seeds)]
    images = sampler.images([article(kind) for kind in requested], list(range(len(requested))))
    return _share(judge.kinds(images), requested)


def style_share(sampler: Sampler, judge: Judge) -> float:
    """Of "a cat in mosaic style": is it mosaic among all 18 training styles?"""
    requested = [(kind, style) for kind in CORE_KINDS for style in CORE_STYLES]
    prompts = [f"{article(kind)} in {style} style" for kind, style in requested]
    images = sampler.images(prompts, list(range(len(requested))))
    return _share(judge.styles(images), [style for _, style in requested])


def colour_share(sampler: Sampler, judge: Judge) -> float:
    """Of "a red cat": is its main colour red, one of nine?"""
    requested = [(kind, colour) for kind in CORE_KINDS for colour in COLOURS]
    prompts = [article(f"{colour} {kind}") for kind, colour in requested]
    images = sampler.images(prompts, list(range(len(requested))))
    return _share(judge.colours(images), [colour for _, colour in requested])


def _share(found: list[str], requested: list[str]) -> float:
    return sum(a == b for a, b in zip(found, requested, strict=True)) / len(requested)


def gates(sampler: Sampler, judge: Judge) -> dict[str, float]:
    table = measure(sampler, judge, standard_pairs())
    return {
        "class": class_share(sampler, judge),
        "style": style_share(sampler, judge),
        "colour": colour_share(sampler, judge),
        "active groups": len(active(table)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = gates(Sampler(StandaloneHost.open(args.model)), Judge())
    for name, value in found.items():
        word = "passed" if value >= GATES[name] else "FAILED"
        print(f"{name:14} {value:6.2f}  (gate {GATES[name]:g})  {word}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return int(any(value < GATES[name] for name, value in found.items()))


if __name__ == "__main__":
    raise SystemExit(main())
