"""The image that the demo trains on: `python -m mini_world.emoji.example --out FILE`.

A held-out individual in a held-out style, both unknown to the miniature.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from mini_world.emoji.scene import View
from mini_world.emoji.things import Individual
from mini_world.emoji.world import Artwork
from unziplora import mini

WHO = Individual(mini.SUBJECT, "noto", 3)
EXAMPLE = Artwork(WHO, View(), None, mini.STYLE, variant=1000, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=mini.IMAGE)
    out: Path = parser.parse_args().out
    Image.fromarray(EXAMPLE.draw()).save(out)


if __name__ == "__main__":
    main()
