"""Contact sheets of the world: `python -m mini_world.sheets --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mini_world.scenes import CONTEXTS
from mini_world.world import (
    HELD_OUT_STYLES,
    KINDS,
    TRAINING_STYLES,
    held_out_instance,
    portrait,
)


def sheet(
    rows: list[list[np.ndarray]], row_names: list[str], column_names: list[str]
) -> Image.Image:
    """Images in a grid with names; every image (128, 128, 3) uint8."""
    side, left, top = rows[0][0].shape[0], 110, 18
    page = Image.new("RGB", (left + side * len(rows[0]), top + side * len(rows)), "white")
    write = ImageDraw.Draw(page)
    for c, name in enumerate(column_names):
        write.text((left + c * side + 4, 3), name, fill="black")
    for r, (name, row) in enumerate(zip(row_names, rows, strict=True)):
        write.text((4, top + r * side + side // 2), name, fill="black")
        for c, image in enumerate(row):
            page.paste(Image.fromarray(image), (left + c * side, top + r * side))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    variety = [
        [portrait(held_out_instance(k, i), "", i, i).draw() for i in range(8)] for k in KINDS
    ]
    sheet(variety, KINDS, [str(i) for i in range(8)]).save(out / "classes.png")

    styles = TRAINING_STYLES + HELD_OUT_STYLES
    kinds = ["cat", "house", "fish", "apple", "rocket"]
    rows = [
        [portrait(held_out_instance(k, i), s, i, i).draw() for i, k in enumerate(kinds)]
        + [
            portrait(held_out_instance("owl", 9), s, 5, 9, c).draw()
            for c in ("on a beach", "at night", "in a city")
        ]
        for s in styles
    ]
    sheet(rows, [s or "(neutral)" for s in styles], [*kinds, "beach", "night", "city"]).save(
        out / "styles.png"
    )

    contexts = sorted(CONTEXTS)
    rows = [
        [portrait(held_out_instance(k, 3), "", 0, i, c).draw() for i, k in enumerate(kinds)]
        for c in contexts
    ]
    sheet(rows, contexts, kinds).save(out / "contexts.png")


if __name__ == "__main__":
    main()
