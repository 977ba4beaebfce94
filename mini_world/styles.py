"""Renderers that most styles of emoji/styles.py are: how a scene becomes an image.

Each is a function (scene, traits, rng) -> image. `traits` is seeded by the variant of the
style (angle, spacing, ink, paper: the same in every image of that variant), `rng` by the
image (where a blot falls). Images are (side, side, 3), 0..1.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mini_world.brushes import mix, paint, pick, rgb, sample, vivid, waves
from mini_world.scenes import SIDE, Scene
from mini_world.textures import Array, blur, cells, grid, noise


def neutral(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Flat colours with soft light from above and a soft shadow."""
    y, _ = grid(SIDE)
    solid = blur(scene.objects.astype(np.float32), 7)
    shadow = np.roll(solid, 9, 0) * ~scene.objects
    light = 1.06 - 0.16 * y / SIDE
    return np.clip(scene.colour * light[..., None] * (1 - 0.3 * shadow[..., None]), 0, 1)


def line_drawing(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    ink, width = pick(traits, (24, 24, 30), (30, 34, 84), (70, 40, 26)), traits.choice([5, 7])
    paper = np.broadcast_to(rgb(252, 251, 247), (SIDE, SIDE, 3))
    return paint(paper, scene.edges(int(width)), ink)


def pencil_hatching(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    angle, period = float(traits.choice([35, 55, 125, 145])), traits.uniform(9, 13)
    wobble = noise(SIDE, 24, rng) * 6
    dark = 1 - scene.light
    first = waves(period, angle, wobble) < dark * 0.9
    second = waves(period, angle + 90, wobble) < (dark - 0.45) * 1.2
    tone = 0.96 - 0.5 * first - 0.25 * second - 0.6 * scene.edges(3)
    return np.repeat(np.clip(blur(tone.astype(np.float32), 0.8), 0.1, 1)[..., None], 3, -1)


def pop_art(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    period, ground = (
        traits.uniform(15, 19),
        pick(traits, (255, 236, 60), (90, 220, 240), (255, 130, 190)),
    )
    y, x = grid(SIDE)
    row = np.floor(y / period)
    dx = np.mod(x / period + 0.5 * np.mod(row, 2), 1) - 0.5
    dots = np.hypot(dx, np.mod(y / period, 1) - 0.5)
    bold = np.where(
        scene.colour.max(-1, keepdims=True) > 0.3, vivid(scene.colour * 1.15, 1.6), 0.08
    )
    tint = mix(bold, np.ones_like(bold), 0.55)
    inside = paint(tint.astype(np.float32), dots < 0.36, bold)
    outside = paint(np.broadcast_to(ground, bold.shape), dots < 0.22, rgb(255, 255, 255))
    image = np.where(
        scene.objects[..., None], inside, outside * (0.55 + 0.45 * scene.light[..., None])
    )
    return paint(image, scene.edges(5, objects_only=True), rgb(12, 12, 16))


def mosaic(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    size, grout = traits.uniform(12, 14), pick(traits, (60, 56, 60), (236, 230, 216), (120, 96, 76))
    tiles = cells(SIDE, size, rng, jitter=0.12)
    colour = sample(scene, tiles.centre_y, tiles.centre_x)
    tile = np.clip(vivid(colour, 1.15) * (0.8 + 0.4 * tiles.shade[..., None]), 0, 1)
    return paint(tile, tiles.rim < 0.17, grout)


def neon(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    inks = [rgb(255, 40, 160), rgb(40, 230, 255), rgb(120, 255, 80), rgb(255, 150, 40)]
    first, second = (inks[int(i)] for i in traits.permutation(4)[:2])
    outer = scene.edges(5, objects_only=True)
    _, x = grid(SIDE)
    ink = mix(
        np.broadcast_to(first, (SIDE, SIDE, 3)), np.broadcast_to(second, (SIDE, SIDE, 3)), x / SIDE
    )
    tube = outer.astype(np.float32)
    glow = np.clip(blur(tube, 9) * 1.3 + blur(tube, 3) * 0.7, 0, 1)
    weak = blur((scene.edges(3) & ~outer).astype(np.float32), 1.5) * 0.35
    dark = np.broadcast_to(rgb(14, 10, 28), ink.shape)
    return np.clip(
        mix(mix(dark, ink, np.clip(glow + weak, 0, 1)), np.ones_like(ink), blur(tube, 1) * 0.6),
        0,
        1,
    )


def paper_cut(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Sheets of muted paper: every border throws a shadow down and to the right."""
    reach = int(traits.integers(5, 9))
    colour = mix(vivid(scene.colour, 0.75), np.ones_like(scene.colour), 0.22)
    edge = blur(scene.edges(5).astype(np.float32), 3)
    shade = np.clip(np.roll(edge, (reach, reach), (0, 1)) * 1.3, 0, 1)
    lit = np.clip(np.roll(edge, (-3, -3), (0, 1)), 0, 1)
    grain = 0.95 + 0.1 * noise(SIDE, 4, rng)
    return np.clip(
        colour * grain[..., None] * (1 - 0.55 * shade[..., None]) + 0.16 * lit[..., None], 0, 1
    )


def pixel_art(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    count = int(traits.choice([21, 26]))
    edged = paint(scene.colour, scene.edges(5, objects_only=True), rgb(30, 26, 40))
    image = Image.fromarray((np.clip(vivid(edged, 1.25), 0, 1) * 255).astype(np.uint8))
    small = image.resize((count, count), Image.Resampling.BOX)
    levels = np.round(np.asarray(small, np.float32) / 255 * 5) / 5
    big = Image.fromarray((levels * 255).astype(np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.NEAREST
    )
    return np.asarray(big, np.float32) / 255


def stained_glass(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    panes = cells(SIDE, traits.uniform(34, 44), rng)
    y, x = grid(SIDE)
    glow = 1.25 - 0.7 * np.hypot(x / SIDE - 0.5, y / SIDE - 0.5)
    glass = vivid(scene.colour, 1.8) * (0.75 + 0.4 * panes.shade[..., None]) * glow[..., None]
    lead = (panes.rim < 0.09) | scene.edges(5, objects_only=True)
    return paint(np.clip(glass, 0, 1), lead, rgb(18, 16, 18))


def blueprint(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    ground, period = (
        pick(traits, (24, 66, 140), (18, 84, 130), (40, 52, 132)),
        traits.choice([24, 32]),
    )
    y, x = grid(SIDE)
    lines = (np.mod(x, period) < 2.2) | (np.mod(y, period) < 2.2)
    image = paint(
        np.broadcast_to(ground, (SIDE, SIDE, 3)), lines, mix(ground, rgb(255, 255, 255), 0.28)
    )
    return paint(image, scene.edges(5), rgb(232, 242, 255))


def chalk(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    board = pick(traits, (38, 66, 54), (44, 46, 50), (52, 44, 60))
    angle = float(traits.choice([30, 60, 120, 150]))
    pastel = mix(scene.colour, np.ones_like(scene.colour), 0.55)
    grain = noise(SIDE, 3, rng)
    strokes = (waves(12, angle, noise(SIDE, 20, rng) * 9) < 0.5) & scene.objects
    cover = 0.62 * strokes * (grain > 0.35) + 0.95 * scene.edges(7) * (grain > 0.3)
    ground = board * (0.9 + 0.25 * noise(SIDE, 40, rng)[..., None])
    return np.clip(mix(ground, pastel, blur(np.clip(cover, 0, 1).astype(np.float32), 1)), 0, 1)


def oil_painting(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    angle, size = float(traits.choice([30, 60, 120, 150])), traits.uniform(9, 11)
    strokes = cells(SIDE, size, rng, aspect=2.5, degrees=angle)
    colour = vivid(sample(scene, strokes.centre_y, strokes.centre_x), 1.1) * 0.86
    ridge = np.clip(strokes.rim, 0, 0.5)
    light = 0.62 + 0.42 * strokes.shade + 0.42 * ridge
    return np.clip(colour * light[..., None], 0, 1)


def cartoon(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Bright flat colours, thick outlines, one hard shade."""
    width = int(traits.choice([5, 7]))
    bright = np.clip(vivid(scene.colour, 1.45) * 1.12 + 0.03, 0, 1)
    inner = np.roll(scene.objects, (-14, -14), (0, 1)) & scene.objects
    bright = np.where((scene.objects & ~inner)[..., None], bright * 0.72, bright)
    return paint(bright, scene.edges(width, objects_only=True), rgb(10, 10, 12))


def sepia(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    y, x = grid(SIDE)
    soft = blur(neutral(scene, traits, rng).mean(-1), traits.uniform(2, 3))
    tone = soft * (1.15 - 1.1 * (np.hypot(x / SIDE - 0.5, y / SIDE - 0.5)) ** 2)
    tone = np.clip(tone + 0.08 * (noise(SIDE, 6, rng) - 0.5), 0, 1)
    return mix(
        np.broadcast_to(rgb(46, 26, 14), (SIDE, SIDE, 3)),
        np.broadcast_to(rgb(250, 226, 180), (SIDE, SIDE, 3)),
        tone,
    )


def low_poly(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Triangles: every square of a grid halved along alternating diagonals, shaded apart."""
    size = traits.uniform(21, 25)
    y, x = grid(SIDE)
    oy, ox = rng.uniform(0, size, 2)
    iy, ix = np.floor((y + oy) / size), np.floor((x + ox) / size)
    fy, fx = (y + oy) / size - iy, (x + ox) / size - ix
    up = np.where(np.mod(iy + ix, 2) < 1, fy < fx, fy < 1 - fx)
    cy = (iy + np.where(up, 0.3, 0.7)) * size - oy
    cx = (ix + np.where(np.mod(iy + ix, 2) < 1, np.where(up, 0.7, 0.3), 0.5)) * size - ox
    cy, cx = np.clip(cy, 0, SIDE - 1).astype(int), np.clip(cx, 0, SIDE - 1).astype(int)
    shade = np.mod(np.sin(iy * 12.9 + ix * 78.2 + up * 37.7) * 437.5, 1)
    colour = sample(scene, cy, cx)
    return np.clip(colour * (0.72 + 0.45 * shade[..., None]), 0, 1).astype(np.float32)


def synthwave(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Violet shadows, pink and orange lights, dark scan lines, a glow at the horizon."""
    y, _ = grid(SIDE)
    tone = np.clip(scene.light * 0.75 + 0.3 * (1 - np.abs(y / SIDE - 0.6)) - 0.1, 0, 1)
    stops = (
        np.array([[22, 8, 58], [120, 20, 150], [250, 50, 140], [255, 170, 60], [255, 240, 150]])
        / 255
    )
    image = np.stack([np.interp(tone, np.linspace(0, 1, 5), stops[:, c]) for c in range(3)], -1)
    image = image.astype(np.float32)
    lines = np.mod(y, traits.choice([12, 16])) < 4
    image = np.where(lines[..., None], image * 0.6, image)
    return paint(image, scene.edges(3, objects_only=True), rgb(80, 240, 255))


def linocut(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """One ink: dark parts printed, light parts bare, carved lines around the object."""
    ink = pick(traits, (20, 20, 22), (120, 24, 30), (22, 60, 58))
    angle = float(traits.choice([0, 45, 90, 135]))
    carve = waves(18, angle, noise(SIDE, 28, rng) * 18)
    level = np.where(scene.objects, 0.2 + 0.9 * scene.light, 0.16 * scene.light)
    bare = (carve < level) | scene.edges(5, objects_only=True)
    return paint(np.broadcast_to(ink, (SIDE, SIDE, 3)), bare, rgb(244, 236, 218))


# Held out of pretraining: what a user brings.


def thermal(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    heat = blur(scene.objects.astype(np.float32), 10) * 0.55 + scene.light * 0.35 * scene.objects
    heat = blur(np.clip(heat + 0.18 * noise(SIDE, 40, rng), 0, 1).astype(np.float32), 4)
    stops = (
        np.array([[6, 8, 80], [20, 90, 200], [40, 200, 140], [250, 230, 50], [240, 60, 30]]) / 255
    )
    return np.stack(
        [np.interp(heat, np.linspace(0.05, 0.95, 5), stops[:, c]) for c in range(3)], -1
    ).astype(np.float32)


def riso(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Two inks printed apart: one for the shadows as dots, one for the object, shifted."""
    inks = [rgb(255, 72, 100), rgb(0, 130, 160), rgb(255, 180, 0), rgb(70, 80, 200)]
    a, b = (inks[int(i)] for i in traits.permutation(4)[:2])
    shift = int(traits.integers(5, 9))
    y, x = grid(SIDE)
    dots = np.hypot(np.mod((x + y) / 15, 1) - 0.5, np.mod((x - y) / 15, 1) - 0.5)
    paper = np.broadcast_to(rgb(248, 242, 228), scene.colour.shape)
    first = np.roll(scene.objects * (0.35 + 0.65 * (scene.light < 0.7)), shift, 1)
    second = (dots < 0.62 * (1.05 - scene.light)) | scene.edges(3, objects_only=True)
    image = paper * (1 - first[..., None] * (1 - a))
    return np.clip(np.where(second[..., None], image * (0.1 + 0.9 * b), image), 0, 1).astype(
        np.float32
    )


def clay(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    """Every part a rounded lump, lit from the upper left."""
    height = blur(1 - scene.edges(9).astype(np.float32), traits.uniform(6, 8))
    bumps = height + 0.12 * noise(SIDE, 10, rng)
    slope = (np.roll(bumps, -4, 0) - np.roll(bumps, 4, 0)) + (
        np.roll(bumps, -4, 1) - np.roll(bumps, 4, 1)
    )
    light = 0.78 + 0.75 * slope
    gloss = np.clip(slope - 0.28, 0, 1) * 1.2
    soft = mix(scene.colour, np.ones_like(scene.colour), 0.08)
    return np.clip(soft * light[..., None] + gloss[..., None], 0, 1)


def ink_wash(scene: Scene, traits: np.random.Generator, rng: np.random.Generator) -> Array:
    tint = pick(traits, (28, 28, 34), (26, 40, 66), (54, 34, 30))
    dark = blur((1 - scene.light) * (0.25 + 0.75 * scene.objects), traits.uniform(5, 8))
    wash = np.clip(dark * (0.35 + 1.1 * noise(SIDE, 36, rng)), 0, 1)
    brush = blur(
        scene.edges(7, objects_only=True) * (noise(SIDE, 22, rng) > 0.38).astype(np.float32), 1.5
    )
    paper = np.broadcast_to(rgb(246, 242, 232), (SIDE, SIDE, 3))
    return mix(paper, np.broadcast_to(tint, paper.shape), np.clip(0.75 * wash + 0.9 * brush, 0, 1))
