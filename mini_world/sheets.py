"""Contact sheets: images in a grid with names."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw


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
