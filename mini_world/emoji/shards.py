"""Training images on disk: `python -m mini_world.emoji.shards --run-dir DIR --count 4 --wide`.

A shard is NNNN.npy, (SHARD, 128, 128, 3) uint8, beside NNNN.json with what each image shows and
four captions of it, in core/ (what the UNet learns first) or, with --wide, in wide/ (all that may
be trained on, for the VAE and the networks that judge). Shard n is always the same; several
processes may draw at once with different --first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mini_world.emoji.captions import caption
from mini_world.emoji.world import CORE_KINDS, CORE_STYLES, Artwork, training_artwork
from mini_world.scenes import IMAGE_SIDE
from mini_world.shard_files import save_shard

SHARD = 1000
CORE = {"context_share": 0.12, "neutral_share": 0.3, "reach": 0.6}  # moderate places at first


def facts(artwork: Artwork, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "kind": artwork.who.kind,
        "vendor": artwork.who.vendor,
        "hue": artwork.who.hue,
        "style": artwork.style,
        "variant": artwork.variant,
        "context": artwork.context,
        "captions": [caption(artwork, rng) for _ in range(4)],
    }


def draw_shard(folder: Path, number: int, wide: bool) -> None:
    """Shard `number`; its files appear when it is whole."""
    rng = np.random.default_rng((41, number, int(wide)))
    pixels = np.zeros((SHARD, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    known = []
    for i in range(SHARD):
        artwork = (
            training_artwork(rng)
            if wide
            else training_artwork(rng, CORE_KINDS, CORE_STYLES, **CORE)
        )
        pixels[i] = artwork.draw()
        known.append(facts(artwork, rng))
    save_shard(folder, number, pixels, known)


def draw_shards(run_dir: Path, wide: bool, numbers: Sequence[int], workers: int = 1) -> None:
    """Draw those of the shards that are not there yet."""
    folder = run_dir / ("wide" if wide else "core")
    absent = [number for number in numbers if not (folder / f"{number:04d}.npy").exists()]
    if workers == 1:
        for number in absent:
            draw_shard(folder, number, wide)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(draw_shard, repeat(folder), absent, repeat(wide)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.count)
    draw_shards(args.run_dir, args.wide, numbers, args.workers)


if __name__ == "__main__":
    main()
