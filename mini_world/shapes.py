"""The classes of the drawn world, by name: what each object looks like."""

from __future__ import annotations

from mini_world.animals import ANIMALS
from mini_world.pen import Draw
from mini_world.things import THINGS

CLASSES: dict[str, Draw] = {**ANIMALS, **THINGS}
