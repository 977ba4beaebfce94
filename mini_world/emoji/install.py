"""Fetch the emoji sets, or pack what is drawn from them for a machine that cannot.

    python -m mini_world.emoji.install --install DIR   npm install of the packages into DIR
    python -m mini_world.emoji.install --pack DIR      every drawing that things.py names, as PNG

A pack is for a machine that reaches no registry and has no resvg.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from PIL import Image

from mini_world.emoji.sets import FOLDER_VARIABLE, PACK, PACKAGES, folder, glyph, has, missing
from mini_world.emoji.things import CLASSES


def install(target: Path) -> None:
    """npm install of every package at its pinned version."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES.values()],
        cwd=target,
        check=True,
    )
    print(f"Set {FOLDER_VARIABLE}={target.resolve()}")


def pack(target: Path) -> int:
    """Write every named drawing as TARGET/glyphs/VENDOR/NAME.png; their number."""
    images = {
        (vendor, name): glyph(vendor, name)
        for vendor in PACKAGES
        for names in CLASSES.values()
        for name in names
        if has(vendor, name)
    }
    for (vendor, name), image in images.items():
        path = target / PACK / vendor / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, optimize=True)
    return len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", type=Path, metavar="DIR")
    parser.add_argument("--pack", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.install is not None:
        install(arguments.install)
    elif arguments.pack is not None:
        print(pack(arguments.pack), "drawings")
    else:
        print(missing() or f"All {len(PACKAGES)} sets are in {folder()}.")


if __name__ == "__main__":
    main()
