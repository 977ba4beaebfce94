"""Training images on disk: `python -m mini_world.shards --run-dir DIR --first 0 --count 10`.

A shard is NNNN.npy, (SHARD, 128, 128, 3) uint8, beside NNNN.json with what each image shows and
four captions of it, in core/ (what the UNet learns) or, with --wide, in wide/ (all that may be
trained on, for the VAE and the probes). Shard n is always the same; several processes may draw at
once with different --first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mini_world.captions import caption
from mini_world.scenes import IMAGE_SIDE
from mini_world.shard_files import save_shard
from mini_world.world import CORE_KINDS, CORE_STYLES, Drawing, training_drawing

SHARD = 2000


def facts(drawing: Drawing, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "kinds": [who.kind for who, _ in drawing.actors],
        "colours": [who.colour for who, _ in drawing.actors],
        "style": drawing.style,
        "context": drawing.context,
        "captions": [caption(drawing, rng) for _ in range(4)],
    }


def draw_shard(folder: Path, number: int, wide: bool) -> None:
    rng = np.random.default_rng((17, number, int(wide)))
    known = (None, None) if wide else (CORE_KINDS, CORE_STYLES)
    pixels = np.zeros((SHARD, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    known_facts = []
    for i in range(SHARD):
        drawing = training_drawing(rng, *known)
        pixels[i] = drawing.draw()
        known_facts.append(facts(drawing, rng))
    save_shard(folder, number, pixels, known_facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.run_dir / ("wide" if arguments.wide else "core")
    for number in range(arguments.first, arguments.first + arguments.count):
        if not (folder / f"{number:04d}.npy").exists():
            draw_shard(folder, number, arguments.wide)


if __name__ == "__main__":
    main()
