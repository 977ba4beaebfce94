"""The animals of the drawn world."""

from __future__ import annotations

import numpy as np

from mini_world.pen import DARK, LIGHT, Draw, Pen, box, eye, known_as

ANIMALS: dict[str, Draw] = {}


@known_as("cat", ANIMALS)
def cat(pen: Pen, t: np.random.Generator) -> None:
    ear, fat, tail = t.uniform(0.28, 0.5), t.uniform(0.42, 0.62), t.uniform(-0.15, 0.35)
    head = t.uniform(0.4, 0.5)
    pen.line([(0.35, 0.75), (0.85, 0.7), (0.9, 0.2 - tail), (0.7, -0.1 - tail)], 0.17, "main")
    pen.blob([(-fat, 0.9), (-fat * 0.8, 0.1), (0, -0.15), (fat * 0.8, 0.1), (fat, 0.9)], "main")
    pen.ellipse(0, 0.55, fat * 0.5, 0.36, "second")
    for s in (-1, 1):
        tip = -0.5 - head * 0.5 - ear
        pen.poly([(s * head, -0.5), (s * head * 0.95, tip), (s * head * 0.1, -0.75)], "main")
        pen.poly(
            [(s * head * 0.8, -0.65), (s * head * 0.85, tip + 0.15), (s * head * 0.35, -0.7)],
            "accent",
        )
    pen.ellipse(0, -0.42, head * 1.12, head * 0.92, "main")
    pen.ellipse(0, -0.25, head * 0.5, head * 0.36, "second")
    for s in (-1, 1):
        eye(pen, s * head * 0.48, -0.5, 0.11)
        pen.ellipse(s * 0.25, 0.88, 0.2, 0.12, "second")
    pen.poly([(-0.07, -0.36), (0.07, -0.36), (0, -0.26)], DARK)


@known_as("rabbit", ANIMALS)
def rabbit(pen: Pen, t: np.random.Generator) -> None:
    ear, width, lop = t.uniform(0.55, 0.8), t.uniform(0.1, 0.16), t.uniform(0, 25)
    fat = t.uniform(0.42, 0.58)
    for s in (-1, 1):
        pen.ellipse(s * (0.2 + lop / 120), -0.62, width, ear * 0.62, "main", s * lop)
        pen.ellipse(s * (0.2 + lop / 120), -0.6, width * 0.5, ear * 0.45, "accent", s * lop)
    pen.ellipse(fat * 0.95, 0.62, 0.17, 0.17, "second")
    pen.ellipse(0, 0.5, fat, 0.5, "main")
    pen.ellipse(0, 0.58, fat * 0.55, 0.36, "second")
    pen.ellipse(0, -0.15, 0.38, 0.34, "main")
    for s in (-1, 1):
        eye(pen, s * 0.17, -0.2, 0.09)
        pen.ellipse(s * 0.3, 0.93, 0.22, 0.1, "second")
    pen.ellipse(0, -0.04, 0.07, 0.05, "accent")
    pen.poly(box(-0.07, 0.03, 0.07, 0.15), LIGHT)


@known_as("fish", ANIMALS)
def fish(pen: Pen, t: np.random.Generator) -> None:
    tall, tail, fin = t.uniform(0.38, 0.62), t.uniform(0.35, 0.62), t.uniform(0.2, 0.42)
    fork = t.uniform(0.1, 0.35)
    pen.poly([(0.4, 0), (0.98, -tail), (0.98 - fork, 0), (0.98, tail)], "accent")
    pen.poly([(-0.3, -tall * 0.7), (0.1, -tall - fin), (0.45, -tall * 0.4)], "accent")
    pen.poly([(-0.1, tall * 0.7), (0.2, tall + fin * 0.7), (0.4, tall * 0.4)], "accent")
    pen.blob(
        [
            (-0.95, 0.02),
            (-0.45, -tall),
            (0.2, -tall * 0.8),
            (0.6, 0),
            (0.2, tall * 0.8),
            (-0.45, tall),
        ],
        "main",
    )
    pen.blob(
        [
            (-0.9, 0.1),
            (-0.4, tall * 0.5),
            (0.3, tall * 0.4),
            (0.1, tall * 0.72),
            (-0.45, tall * 0.88),
        ],
        "second",
    )
    pen.poly([(-0.2, 0.02), (0.15, -0.12), (0.15, 0.2)], "accent")
    eye(pen, -0.58, -0.12, 0.14)


@known_as("bird", ANIMALS)
def bird(pen: Pen, t: np.random.Generator) -> None:
    beak, tail, crest = t.uniform(0.2, 0.38), t.uniform(0.25, 0.5), int(t.integers(3))
    fat = t.uniform(0.4, 0.54)
    for x in (-0.12, 0.12):
        pen.line([(x, 0.4), (x, 0.9), (x - 0.16, 0.92)], 0.07, "accent")
    pen.poly([(0.3, 0.1), (0.98, -0.05 - tail * 0.4), (0.95, 0.25 + tail * 0.3)], "second")
    pen.ellipse(0, 0.15, 0.62, fat, "main", 8)
    pen.ellipse(-0.12, 0.32, 0.4, fat * 0.55, "second", 8)
    pen.poly([(-0.68, -0.52), (-0.7 - beak, -0.4), (-0.66, -0.3)], "accent")
    for i in range(crest):
        pen.poly(
            [(-0.5 + i * 0.14, -0.7), (-0.3 + i * 0.16, -0.98), (-0.3 + i * 0.14, -0.66)], "accent"
        )
    pen.ellipse(-0.42, -0.42, 0.34, 0.32, "main")
    pen.blob([(-0.1, -0.08), (0.5, -0.1), (0.6, 0.2), (0.15, 0.3)], "second")
    eye(pen, -0.5, -0.46, 0.1)


@known_as("butterfly", ANIMALS)
def butterfly(pen: Pen, t: np.random.Generator) -> None:
    up, low, point = t.uniform(0.68, 0.95), t.uniform(0.45, 0.72), t.uniform(0.55, 0.95)
    dot = t.uniform(0.1, 0.2)
    for s in (-1, 1):
        pen.line([(0, -0.4), (s * 0.15, -0.75), (s * 0.32, -0.9)], 0.05, DARK)
        pen.blob([(s * 0.05, 0.05), (s * 0.35, 0.85), (s * low, 0.72), (s * low, 0.25)], "second")
        pen.blob(
            [
                (s * 0.05, -0.25),
                (s * 0.5, -point),
                (s * up, -point * 0.85),
                (s * up, 0.0),
                (s * 0.3, 0.12),
            ],
            "main",
        )
        pen.ellipse(s * up * 0.62, -0.42, dot, dot * 1.2, "accent")
        pen.ellipse(s * low * 0.65, 0.48, dot * 0.8, dot * 0.8, "accent")
    pen.ellipse(0, 0.0, 0.1, 0.5, DARK)


@known_as("turtle", ANIMALS)
def turtle(pen: Pen, t: np.random.Generator) -> None:
    dome, head, plates = t.uniform(0.55, 0.85), t.uniform(0.2, 0.27), int(t.integers(2, 5))
    for x in (-0.48, 0.36):
        pen.blob([(x, 0.3), (x + 0.26, 0.3), (x + 0.2, 0.72), (x - 0.08, 0.72)], "second")
    pen.poly([(0.6, 0.3), (0.95, 0.5), (0.6, 0.5)], "second")
    pen.line([(-0.5, 0.25), (-0.72, 0.0)], 0.24, "second")
    pen.ellipse(-0.78, -0.08, head, head * 0.9, "second")
    pen.blob(
        [
            (-0.66, 0.42),
            (-0.5, 0.35 - dome * 0.7),
            (0.02, 0.35 - dome),
            (0.52, 0.35 - dome * 0.7),
            (0.7, 0.42),
        ],
        "main",
    )
    for i in range(plates):
        x = -0.36 + 0.76 * (i + 0.5) / plates
        pen.ellipse(x, 0.26 - dome * 0.45, 0.3 / plates, dome * 0.2, "accent")
    pen.line([(-0.68, 0.4), (0.7, 0.4)], 0.13, "accent")
    eye(pen, -0.84, -0.12, 0.08)


@known_as("snail", ANIMALS)
def snail(pen: Pen, t: np.random.Generator) -> None:
    shell, horn, turns = t.uniform(0.48, 0.62), t.uniform(0.25, 0.42), t.uniform(1.4, 2.3)
    for dx in (-0.12, 0.08):
        pen.line([(-0.7, 0.0), (-0.72 + dx * 1.8, -horn)], 0.07, "second")
        pen.ellipse(-0.72 + dx * 1.8, -horn, 0.07, 0.07, DARK)
    pen.blob(
        [
            (-0.92, 0.1),
            (-0.7, -0.1),
            (-0.5, 0.35),
            (0.3, 0.4),
            (0.95, 0.72),
            (-0.6, 0.74),
            (-0.85, 0.5),
        ],
        "second",
    )
    pen.ellipse(0.2, 0.02, shell, shell, "main")
    angle = np.linspace(0, turns * 2 * np.pi, 34)
    radius = shell * 0.85 * (1 - angle / (angle[-1] * 1.1))
    spiral = list(zip(0.2 + radius * np.cos(angle), 0.02 + radius * np.sin(angle), strict=True))
    pen.line([(float(x), float(y)) for x, y in spiral], 0.09, "accent")


@known_as("penguin", ANIMALS)
def penguin(pen: Pen, t: np.random.Generator) -> None:
    fat, wing, scarf = t.uniform(0.44, 0.6), t.uniform(8, 40), bool(t.integers(2))
    for s in (-1, 1):
        pen.ellipse(s * 0.24, 0.9, 0.25, 0.1, "accent")
        pen.ellipse(s * (fat + 0.06), 0.15, 0.13, 0.45, "main", -s * wing)
    pen.blob(
        [
            (-fat * 0.95, 0.85),
            (-fat, 0.2),
            (-0.36, -0.6),
            (0, -0.92),
            (0.36, -0.6),
            (fat, 0.2),
            (fat * 0.95, 0.85),
        ],
        "main",
    )
    pen.ellipse(0, 0.35, fat * 0.68, 0.5, LIGHT)
    pen.ellipse(0, -0.45, 0.28, 0.24, LIGHT)
    if scarf:
        pen.line([(-0.4, -0.15), (0, -0.08), (0.4, -0.15)], 0.16, "second")
        pen.line([(0.22, -0.1), (0.26, 0.28)], 0.15, "second")
    for s in (-1, 1):
        eye(pen, s * 0.13, -0.54, 0.08)
    pen.poly([(-0.12, -0.42), (0.12, -0.42), (0, -0.24)], "accent")


@known_as("owl", ANIMALS)
def owl(pen: Pen, t: np.random.Generator) -> None:
    fat, tuft, big = t.uniform(0.52, 0.66), t.uniform(0.1, 0.32), t.uniform(0.22, 0.29)
    for s in (-1, 1):
        pen.poly([(s * 0.12, -0.72), (s * 0.5, -0.85 - tuft * 0.5), (s * 0.56, -0.45)], "main")
    pen.blob(
        [
            (-fat * 0.9, 0.75),
            (-fat, -0.1),
            (-fat * 0.8, -0.72),
            (fat * 0.8, -0.72),
            (fat, -0.1),
            (fat * 0.9, 0.75),
            (0, 0.95),
        ],
        "main",
    )
    pen.ellipse(0, 0.38, fat * 0.6, 0.45, "second")
    for s in (-1, 1):
        pen.ellipse(s * (fat - 0.02), 0.25, 0.15, 0.42, "accent", s * 8)
        pen.ellipse(s * 0.27, -0.38, big, big, LIGHT)
        pen.ellipse(s * 0.25, -0.38, big * 0.5, big * 0.5, DARK)
        pen.ellipse(s * 0.22, 0.93, 0.14, 0.08, "accent")
    pen.poly([(-0.09, -0.3), (0.09, -0.3), (0, -0.08)], "accent")
