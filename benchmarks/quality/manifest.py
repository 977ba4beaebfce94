"""python -m benchmarks.quality.manifest --out DIR [--part choose|final] [--gates JSON] [--images N]

Writes a part's images and their list, list.csv, for `unziplora batch`: the benchmark's table by the
commands that anyone has, over images of their own too. With --gates only those that the benchmark
uses: JSON is what `python -m benchmarks.quality --part gates --images final --json JSON`, or any of
its parts, has written of this part's images.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.quality.gates import Headroom, passing
from benchmarks.quality.targets import PARTS, TOKEN, WANTED, Target, check_drawings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--part", choices=tuple(PARTS), default="final")
    parser.add_argument("--gates", type=Path, metavar="JSON", help="only what passed, as in JSON")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N")
    given = parser.parse_args(arguments)
    check_drawings()
    targets: Sequence[Target] = PARTS[given.part]
    if given.gates is not None:
        rooms = [Headroom(**row) for row in json.loads(given.gates.read_text("utf-8"))["gates"]]
        targets = passing(rooms, targets)[: WANTED[given.part]]
    print(write_manifest(given.out, targets[: given.images]))
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
