"""The card's grid, nine classes in six styles: `python -m mini_world.samples --out FILE`.

Every image is the first that was drawn: nothing is picked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mini_world.captions import article, in_style
from mini_world.sampler import Sampler
from mini_world.sheets import sheet
from unziplora import mini
from unziplora.hosts.standalone.host import StandaloneHost

KINDS = ["apple", "balloon", "bus", "car", "cat", "house", "mushroom", "penguin", "sailboat"]
STYLES = ("", "watercolor painting", "neon sign", "blueprint drawing", "duotone print",
          "line drawing")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=mini.MODEL)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sampler = Sampler(StandaloneHost.open(args.model), steps=20)
    rows = []
    for row, style in enumerate(STYLES):
        prompts = [in_style(article(kind), style) for kind in KINDS]
        seeds = [100 * row + column for column in range(len(KINDS))]
        rows.append(list(sampler.images(prompts, seeds)))
    names = [style or "(no style)" for style in STYLES]
    sheet(rows, names, KINDS).save(args.out, quality=90)


if __name__ == "__main__":
    main()
