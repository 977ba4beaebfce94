"""Contact sheets of the emoji world: `python -m mini_world.emoji.sheets --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mini_world.emoji.things import VENDORS, Individual
from mini_world.emoji.world import CORE_KINDS, HELD_OUT_STYLES, TRAINING_STYLES, portrait
from mini_world.scenes import CONTEXTS
from mini_world.sheets import sheet

SHOWN = ("cat", "penguin", "mushroom", "car", "house", "strawberry")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    who = [Individual(kind, VENDORS[i % len(VENDORS)]) for i, kind in enumerate(SHOWN)]
    for page, styles in (
        ("styles-1", ["", *TRAINING_STYLES][::2]),
        ("styles-2", ["", *TRAINING_STYLES][1::2]),
        ("held-out-styles", HELD_OUT_STYLES),
    ):
        rows = [
            [portrait(w, style, 1, i).draw() for i, w in enumerate(who)]
            + [portrait(who[0], style, 2, 5).draw(), portrait(who[1], style, 3, 9, c).draw()]
            for style, c in zip(styles, sorted(CONTEXTS) * 9, strict=False)
        ]
        sheet(rows, styles, [*SHOWN, "variant 2", "a place"]).save(out / f"{page}.png")
    rows = [
        [portrait(Individual(kind, v), "", 1, i).draw() for i, v in enumerate(VENDORS)]
        for kind in CORE_KINDS
    ]
    sheet(rows, CORE_KINDS, list(VENDORS)).save(out / "classes.png")


if __name__ == "__main__":
    main()
