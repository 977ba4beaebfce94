"""python -m benchmarks.quality.manifest --out DIR [--part choose|final] [--images N]

Writes a part's images and their list, list.csv, for `unziplora batch`: the benchmark's table by the
commands that anyone has, over images of their own too.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.quality.targets import PARTS, TOKEN, Target, check_drawings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--part", choices=tuple(PARTS), default="final")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N")
    given = parser.parse_args(arguments)
    check_drawings()
    print(write_manifest(given.out, PARTS[given.part][: given.images]))
    return 0


def write_manifest(folder: Path, targets: Sequence[Target]) -> Path:
    """The images and their list, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "list.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "subject", "style", "token", "name"])
        for target in targets:
            image = f"{target.name}.png"
            Image.fromarray(target.image()).save(folder / image)
            rows.writerow([image, target.kind, target.style, TOKEN, target.name])
    return path


if __name__ == "__main__":
    raise SystemExit(main())
