"""The plants, buildings, vehicles and other things of the drawn world."""

from __future__ import annotations

import numpy as np

from mini_world.pen import BROWN, DARK, GLASS, GREEN, GREY, LIGHT, Draw, Pen, box, known_as

THINGS: dict[str, Draw] = {}


@known_as("tree", THINGS)
def tree(pen: Pen, t: np.random.Generator) -> None:
    kind, wide, trunk = int(t.integers(3)), t.uniform(0.55, 0.8), t.uniform(0.11, 0.19)
    pen.poly([(-trunk, 0.1), (trunk, 0.1), (trunk * 1.5, 0.95), (-trunk * 1.5, 0.95)], BROWN)
    if kind == 0:
        pen.ellipse(0, -0.3, wide, 0.62, "main")
    elif kind == 1:
        for x, y, r in ((-0.42, -0.1, 0.42), (0.42, -0.1, 0.42), (0, -0.5, 0.47)):
            pen.ellipse(x * wide * 1.2, y, r, r, "main")
        pen.ellipse(0, -0.15, 0.4, 0.3, "main")
    else:
        for i, y in enumerate((0.35, -0.05, -0.42)):
            pen.poly([(-wide * (1 - 0.2 * i), y), (wide * (1 - 0.2 * i), y), (0, y - 0.58)], "main")
    for x, y in ((-0.3, -0.1), (0.28, -0.02), (0.02, -0.45), (0.3, -0.42), (-0.25, -0.48)):
        if kind != 2 and t.random() < 0.75:
            pen.ellipse(x * wide * 1.4, y, 0.1, 0.1, "accent")


@known_as("cactus", THINGS)
def cactus(pen: Pen, t: np.random.Generator) -> None:
    left, right, wide = t.uniform(-0.3, 0.3), t.uniform(-0.35, 0.25), t.uniform(0.36, 0.52)
    pen.line([(-0.1, left + 0.2), (-0.62, left + 0.2), (-0.62, left - 0.3)], 0.24, "main")
    pen.line([(0.1, right + 0.3), (0.62, right + 0.3), (0.62, right - 0.2)], 0.24, "main")
    pen.line([(0, 0.6), (0, -0.62)], wide, "main")
    if t.random() < 0.6:
        pen.ellipse(0, -0.84, 0.16, 0.12, "accent")
        pen.ellipse(0.62, right - 0.33, 0.11, 0.09, "accent")
    pen.poly([(-0.48, 0.48), (0.48, 0.48), (0.36, 0.98), (-0.36, 0.98)], "second")
    pen.poly(box(-0.54, 0.42, 0.54, 0.58), "second")


@known_as("flower", THINGS)
def flower(pen: Pen, t: np.random.Generator) -> None:
    petals, length, heart = int(t.integers(5, 9)), t.uniform(0.26, 0.34), t.uniform(0.16, 0.25)
    pen.line([(0, -0.3), (0.05, 0.3), (0, 0.97)], 0.1, GREEN)
    pen.ellipse(0.28, 0.5, 0.28, 0.12, GREEN, -30)
    if t.random() < 0.6:
        pen.ellipse(-0.28, 0.66, 0.28, 0.12, GREEN, 30)
    for i in range(petals):
        a = 2 * np.pi * i / petals
        x, y = 0.4 * np.sin(a), -0.4 - 0.4 * np.cos(a)
        pen.ellipse(x, y, length * 4.2 / petals, length, "main", np.rad2deg(a))
    pen.ellipse(0, -0.4, heart, heart, "accent")


@known_as("mushroom", THINGS)
def mushroom(pen: Pen, t: np.random.Generator) -> None:
    cap, wide, stem = t.uniform(0.6, 0.85), t.uniform(0.75, 0.95), t.uniform(0.2, 0.32)
    pen.blob(
        [(-stem, 0.0), (stem, 0.0), (stem * 1.2, 0.9), (0, 0.96), (-stem * 1.2, 0.9)], "second"
    )
    pen.blob(
        [
            (-wide, 0.12),
            (-wide * 0.8, -cap * 0.7),
            (0, -cap),
            (wide * 0.8, -cap * 0.7),
            (wide, 0.12),
            (0, 0.2),
        ],
        "main",
    )
    size = t.uniform(0.09, 0.17)
    for x, y in ((-0.5, -0.12), (0.0, -0.42), (0.48, -0.1), (-0.02, -0.02)):
        pen.ellipse(x * wide, y * cap * 1.3, size, size * 0.9, "accent")


@known_as("apple", THINGS)
def apple(pen: Pen, t: np.random.Generator) -> None:
    wide, low, leaf = t.uniform(0.7, 0.88), t.uniform(0.3, 0.5), t.uniform(15, 50)
    pen.line([(0, -0.4), (0.06, -0.88)], 0.1, BROWN)
    pen.ellipse(0.32, -0.76, 0.3, 0.13, GREEN, -leaf)
    pen.blob(
        [
            (0, -0.42),
            (-0.45, -0.6),
            (-wide, -0.1),
            (-wide * 0.7, 0.7),
            (-0.2, 0.92),
            (0, 0.84),
            (0.2, 0.92),
            (wide * 0.7, 0.7),
            (wide, -0.1),
            (0.45, -0.6),
        ],
        "main",
    )
    pen.ellipse(-wide * 0.5, -0.12, 0.12, 0.24, LIGHT, 20)
    if t.random() < 0.4:
        pen.ellipse(0.25, low, 0.26, 0.22, "second")


@known_as("cake", THINGS)
def cake(pen: Pen, t: np.random.Generator) -> None:
    tiers, candles, drip = int(t.integers(2, 4)), int(t.integers(1, 4)), t.uniform(0.1, 0.18)
    height = 1.3 / tiers
    for i in range(tiers):
        half = 0.82 - i * 0.52 / max(tiers - 1, 1) * 0.8
        y = 0.92 - i * height
        pen.poly(box(-half, y - height, half, y), "main" if i % 2 == 0 else "second")
        pen.poly(box(-half, y - height, half, y - height + drip), "accent")
        for x in np.linspace(-half + 0.12, half - 0.12, 5 - i):
            pen.ellipse(float(x), y - height + drip, 0.1, 0.1, "accent")
    top = 0.92 - tiers * height
    for i in range(candles):
        x = (i - (candles - 1) / 2) * 0.24
        pen.poly(box(x - 0.05, top - 0.3, x + 0.05, top), LIGHT)
        pen.ellipse(x, top - 0.4, 0.06, 0.11, (250, 176, 52))


@known_as("house", THINGS)
def house(pen: Pen, t: np.random.Generator) -> None:
    roof, wide, door = t.uniform(0.5, 0.8), t.uniform(0.6, 0.78), t.uniform(-0.3, 0.3)
    if t.random() < 0.7:
        pen.poly(box(0.32, -0.85, 0.52, -0.2), BROWN)
    pen.poly(box(-wide, -0.15, wide, 0.92), "main")
    pen.poly([(-wide - 0.18, -0.12), (0, -0.2 - roof), (wide + 0.18, -0.12)], "second")
    pen.poly(box(door - 0.15, 0.35, door + 0.15, 0.92), "accent")
    for x in (-0.42, 0.42):
        if abs(x - door) > 0.3:
            pen.poly(box(x - 0.16, 0.12, x + 0.16, 0.46), GLASS)
    if t.random() < 0.5:
        pen.ellipse(0, -0.38, 0.14, 0.14, GLASS)


@known_as("castle", THINGS)
def castle(pen: Pen, t: np.random.Generator) -> None:
    tower, middle, cone = t.uniform(-0.55, -0.25), t.uniform(-0.5, -0.1), bool(t.integers(2))
    pen.poly(box(-0.6, middle + 0.3, 0.6, 0.92), "main")
    for x in np.linspace(-0.42, 0.42, 4):
        pen.poly(box(float(x) - 0.09, middle + 0.12, float(x) + 0.09, middle + 0.36), "main")
    for s in (-1, 1):
        x = s * 0.7
        pen.poly(box(x - 0.24, tower, x + 0.24, 0.92), "main")
        if cone:
            pen.poly([(x - 0.32, tower), (x, tower - 0.48), (x + 0.32, tower)], "second")
        else:
            for dx in (-0.2, 0, 0.2):
                pen.poly(box(x + dx - 0.07, tower - 0.16, x + dx + 0.07, tower + 0.05), "main")
        pen.poly(box(x - 0.07, tower + 0.25, x + 0.07, tower + 0.5), DARK)
    pen.blob([(-0.2, 0.92), (-0.2, 0.5), (0, 0.36), (0.2, 0.5), (0.2, 0.92)], "accent")
    pen.line([(0, middle + 0.2), (0, middle - 0.4)], 0.05, DARK)
    pen.poly([(0, middle - 0.42), (0.34, middle - 0.3), (0, middle - 0.18)], "accent")


@known_as("car", THINGS)
def car(pen: Pen, t: np.random.Generator) -> None:
    roof, front, wheel = t.uniform(0.35, 0.55), t.uniform(-0.55, -0.3), t.uniform(0.2, 0.27)
    back = t.uniform(0.35, 0.75)
    pen.blob(
        [(front - 0.25, 0.08), (front, -roof), (back - 0.05, -roof), (back + 0.15, 0.08)], "main"
    )
    pen.poly(
        [(front - 0.1, 0.02), (front + 0.08, -roof * 0.75), (0.02, -roof * 0.75), (0.02, 0.02)],
        GLASS,
    )
    pen.poly([(0.12, 0.02), (0.12, -roof * 0.75), (back - 0.08, -roof * 0.75), (back, 0.02)], GLASS)
    pen.blob(
        [(-0.95, 0.1), (-0.85, 0.0), (0.85, -0.02), (0.95, 0.1), (0.95, 0.45), (-0.95, 0.45)],
        "main",
    )
    pen.poly(box(-0.92, 0.24, 0.92, 0.33), "second")
    pen.ellipse(-0.86, 0.14, 0.08, 0.08, (250, 216, 96))
    for x in (-0.52, 0.54):
        pen.ellipse(x, 0.48, wheel, wheel, DARK)
        pen.ellipse(x, 0.48, wheel * 0.5, wheel * 0.5, "accent")


@known_as("sailboat", THINGS)
def sailboat(pen: Pen, t: np.random.Generator) -> None:
    mast, jib, keel = t.uniform(-0.08, 0.2), t.uniform(0.4, 0.75), t.uniform(0.55, 0.8)
    pen.line([(mast, 0.5), (mast, -0.95)], 0.08, BROWN)
    pen.poly([(mast + 0.07, -0.9), (mast + 0.07, 0.32), (min(mast + 0.8, 0.95), 0.32)], "second")
    pen.poly([(mast - 0.07, -0.3 - jib * 0.6), (mast - 0.07, 0.32), (mast - jib, 0.32)], "accent")
    pen.poly([(-0.92, 0.45), (0.92, 0.45), (keel * 0.9, 0.9), (-keel * 0.8, 0.9)], "main")


@known_as("rocket", THINGS)
def rocket(pen: Pen, t: np.random.Generator) -> None:
    wide, fin, rings = t.uniform(0.26, 0.38), t.uniform(0.25, 0.45), int(t.integers(1, 3))
    pen.poly([(-wide * 0.7, 0.6), (0, 0.99), (wide * 0.7, 0.6)], (250, 150, 40))
    for s in (-1, 1):
        pen.poly(
            [(s * wide * 0.8, 0.1), (s * (wide + fin), 0.75), (s * wide * 0.5, 0.62)], "second"
        )
    pen.blob(
        [
            (0, -0.97),
            (wide * 0.85, -0.45),
            (wide, 0.2),
            (wide * 0.7, 0.65),
            (-wide * 0.7, 0.65),
            (-wide, 0.2),
            (-wide * 0.85, -0.45),
        ],
        "main",
    )
    pen.poly([(0, -1.0), (wide * 0.8, -0.5), (-wide * 0.8, -0.5)], "second")
    for i in range(rings):
        y = -0.22 + i * 0.42
        pen.ellipse(0, y, wide * 0.56, wide * 0.56, "accent")
        pen.ellipse(0, y, wide * 0.36, wide * 0.36, GLASS)


@known_as("umbrella", THINGS)
def umbrella(pen: Pen, t: np.random.Generator) -> None:
    ribs, dome, hook = int(t.integers(3, 6)), t.uniform(0.6, 0.85), t.choice([-1, 1])
    pen.line(
        [(0, -0.2), (0, 0.8), (hook * 0.1, 0.92), (hook * 0.27, 0.88), (hook * 0.3, 0.72)],
        0.1,
        "accent",
    )
    pen.line([(0, -0.1 - dome), (0, -0.2 - dome)], 0.08, "accent")
    angle = np.linspace(np.pi, 2 * np.pi, 3 * ribs + 1)
    rim = [(0.95 * float(np.cos(a)), 0.05 + dome * 1.05 * float(np.sin(a))) for a in angle]
    edges = np.linspace(-0.95, 0.95, ribs + 1)
    for i in range(ribs):
        x0, x1 = float(edges[i]), float(edges[i + 1])
        arc = rim[3 * i : 3 * i + 4]
        y = 0.05 - 0.14
        pen.poly([(x0, 0.08), *arc, (x1, 0.08), ((x0 + x1) / 2, y)], "second" if i % 2 else "main")


@known_as("teapot", THINGS)
def teapot(pen: Pen, t: np.random.Generator) -> None:
    fat, tall, spout = t.uniform(0.5, 0.62), t.uniform(0.4, 0.56), t.uniform(-0.35, 0.0)
    pen.line([(0.4, -0.1), (0.85, -0.12), (0.88, 0.4), (0.4, 0.55)], 0.13, "second")
    pen.poly([(-0.35, 0.1), (-0.98, spout - 0.1), (-0.8, spout - 0.16), (-0.35, 0.6)], "second")
    pen.poly(box(-0.3, 0.6, 0.3, 0.9), "second")
    pen.ellipse(0, 0.28, fat, tall, "main")
    pen.ellipse(0, 0.28 - tall * 0.86, 0.36, 0.13, "accent")
    pen.ellipse(0, 0.28 - tall * 0.86 - 0.2, 0.11, 0.11, "accent")
    if t.random() < 0.5:
        pen.line([(-fat * 0.9, 0.36), (fat * 0.9, 0.36)], 0.13, "second")


@known_as("robot", THINGS)
def robot(pen: Pen, t: np.random.Generator) -> None:
    head, body, aerial = t.uniform(0.32, 0.46), t.uniform(0.4, 0.55), int(t.integers(1, 3))
    for i in range(aerial):
        x = (i - (aerial - 1) / 2) * 0.4
        pen.line([(x, -0.6), (x, -0.9)], 0.05, GREY)
        pen.ellipse(x, -0.9, 0.09, 0.09, "accent")
    for s in (-1, 1):
        pen.line([(s * body, -0.02), (s * 0.82, 0.2), (s * 0.8, 0.5)], 0.15, "second")
        pen.poly(box(s * 0.25 - 0.13, 0.55, s * 0.25 + 0.13, 0.95), "second")
    pen.poly(box(-body, -0.1, body, 0.65), "main")
    pen.poly(box(-head, -0.72, head, -0.16), "main")
    pen.poly(box(-body * 0.6, 0.1, body * 0.6, 0.42), "accent")
    for s in (-1, 1):
        pen.ellipse(s * head * 0.45, -0.5, 0.11, 0.11, LIGHT)
        pen.ellipse(s * head * 0.45, -0.5, 0.05, 0.05, DARK)
    pen.poly(box(-head * 0.5, -0.32, head * 0.5, -0.24), DARK)


@known_as("snowman", THINGS)
def snowman(pen: Pen, t: np.random.Generator) -> None:
    low, mid, hat = t.uniform(0.46, 0.56), t.uniform(0.33, 0.42), t.uniform(0.22, 0.36)
    for s in (-1, 1):
        pen.line([(s * 0.3, 0.0), (s * 0.88, -0.28)], 0.07, BROWN)
    pen.ellipse(0, 0.5, low, low * 0.88, LIGHT)
    pen.ellipse(0, -0.05, mid, mid * 0.9, LIGHT)
    pen.ellipse(0, -0.48, 0.27, 0.26, LIGHT)
    pen.line([(-0.28, -0.26), (0.28, -0.26)], 0.14, "second")
    pen.line([(0.16, -0.24), (0.2, 0.1)], 0.13, "second")
    pen.poly(box(-0.4, -0.74, 0.4, -0.64), "main")
    pen.poly(box(-0.25, -0.7 - hat, 0.25, -0.7), "main")
    for s in (-1, 1):
        pen.ellipse(s * 0.1, -0.53, 0.045, 0.05, DARK)
    pen.poly([(0, -0.5), (-0.36, -0.42), (0, -0.4)], (240, 132, 40))
    for y in (0.32, 0.58):
        pen.ellipse(0, y, 0.06, 0.06, "accent")
