"""Styles drawn or engraved with one tool: charcoal, marker, graffiti, burins, crayons."""

from __future__ import annotations

import numpy as np

from mini_world.brushes import mix, paint, pick, rgb, vivid, waves
from mini_world.emoji.registry import style
from mini_world.emoji.scene import EmojiScene
from mini_world.scenes import SIDE
from mini_world.textures import Array, blur, grid, noise

Rng = np.random.Generator


def flat(colour: Array) -> Array:
    """One colour over the whole canvas."""
    return np.broadcast_to(colour, (SIDE, SIDE, 3)).astype(np.float32)


@style("charcoal drawing", colour=False)
def charcoal(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Smudged greys on rough paper under thick, broken black outlines."""
    paper = pick(traits, (232, 226, 214), (222, 222, 220), (214, 200, 178))
    smudge = blur((1 - scene.light) * (0.15 + 0.85 * scene.objects), 5)
    grain = noise(SIDE, 4, rng) * 0.6 + noise(SIDE, 12, rng) * 0.4
    tone = 0.75 * smudge * (0.55 + 0.9 * grain)
    stroke = blur((scene.edges(7, objects_only=True) & (grain > 0.28)).astype(np.float32), 1.6)
    return mix(flat(paper), flat(rgb(22, 20, 22)), np.clip(tone + 0.95 * stroke, 0, 1))


@style("marker drawing", colour=True)
def marker(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Felt-tip streaks on white that overlap in bands; outlines in a darker ink."""
    angle = float(traits.choice([20, 70, 110, 160]))
    band = waves(22, angle, noise(SIDE, 30, rng) * 10)
    ink = np.clip(vivid(scene.colour, 1.7), 0.05, 1)
    cover = np.where(band < 0.3, 1.0, 0.72) * np.where(scene.objects, 1, 0.35)
    sheet = mix(np.ones_like(ink), ink, cover.astype(np.float32))
    return paint(sheet, scene.edges(5, objects_only=True), rgb(40, 34, 70))


@style("graffiti drawing", colour=True)
def graffiti(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Sprayed on a brick wall: loud colours, a white halo, a black outline, drips."""
    wall = pick(traits, (164, 84, 66), (128, 124, 120), (176, 140, 104))
    y, x = grid(SIDE)
    row = np.floor(y / 20)
    joint = (np.mod(y, 20) < 3) | (np.mod(x + 22 * np.mod(row, 2), 44) < 3)
    shade = np.mod(np.sin(row * 12.9 + np.floor((x + 22 * np.mod(row, 2)) / 44) * 78.2) * 437, 1)
    bricks = paint(wall * (0.85 + 0.25 * shade[..., None]), joint, wall * 0.62)
    halo = blur(scene.edges(21, objects_only=True).astype(np.float32) * 1.0, 4)
    sheet = mix(bricks.astype(np.float32), np.ones_like(bricks), np.clip(1.4 * halo, 0, 1))
    fill = np.clip(vivid(scene.colour, 2.0) * 1.15, 0, 1)
    drip = scene.objects.copy()
    for start in traits.integers(20, SIDE - 20, 7):
        column = slice(int(start), int(start) + 4)
        lowest = np.argmax(scene.objects[::-1, column].any(1))
        foot = SIDE - int(lowest)
        drip[foot - 6 : min(SIDE, foot + int(rng.integers(10, 30))), column] = lowest > 0
    below = np.roll(fill, 24, 0)
    sheet = np.where((drip & ~scene.objects)[..., None], below, sheet)
    sheet = np.where(scene.objects[..., None], fill, sheet)
    return paint(sheet, scene.edges(5, objects_only=True), rgb(14, 12, 18))


def engraved(tone: Array, period: float, degrees: float, wobble: Array) -> Array:
    """Parallel lines that swell with darkness, 1 where ink is. tone: darkness 0..1."""
    return (waves(period, degrees, wobble) < np.clip(tone, 0, 0.92)).astype(np.float32)


@style("copper engraving", colour=False)
def copper(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Brown ink on cream: swelling horizontal lines, crossed where it is dark."""
    ink = pick(traits, (70, 36, 20), (34, 44, 40), (64, 24, 34))
    dark = (1 - scene.light) * np.where(scene.objects, 1.0, 0.45)
    bend = noise(SIDE, 60, rng) * 26
    lines = engraved(dark * 1.05, 11, 90 + float(traits.choice([-15, 0, 15])), bend)
    cross = engraved((dark - 0.5) * 1.5, 11, 35, bend)
    cover = np.clip(np.maximum(lines, cross) + scene.edges(3, objects_only=True), 0, 1)
    return mix(flat(rgb(244, 234, 210)), flat(ink), blur(cover, 0.7))


@style("scratchboard engraving", colour=False)
def scratchboard(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """White scratches on black that follow the light, fanning out from the middle."""
    y, x = grid(SIDE)
    fan = np.arctan2(y - SIDE / 2, x - SIDE / 2)
    ripple = np.abs(np.mod(fan * float(traits.choice([24, 30, 36])) / np.pi, 1) * 2 - 1)
    lit = np.where(scene.objects, 0.12 + 0.85 * scene.light, 0.0)
    broken = noise(SIDE, 10, rng) * 0.25
    cover = np.maximum(ripple < lit - broken, scene.edges(3, objects_only=True))
    return mix(flat(rgb(16, 16, 20)), flat(rgb(246, 246, 240)), blur(cover.astype(np.float32), 0.8))


@style("gold engraving", colour=False, held_out=True)
def gold(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Gold leaf lines on black lacquer, brighter towards one corner."""
    angle, period = float(traits.choice([0, 45, 90, 135])), 14.0
    y, x = grid(SIDE)
    leaf = mix(flat(rgb(178, 124, 36)), flat(rgb(255, 228, 140)), (x + y) / (2 * SIDE))
    lines = (waves(period, angle) < scene.light * 0.8) & scene.objects
    return paint(flat(rgb(16, 14, 16)), lines | scene.edges(5, objects_only=True), leaf)


@style("crayon drawing", colour=True, held_out=True)
def crayon(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Wax strokes with bare paper between them, a rough dark outline in each colour."""
    angle = float(traits.choice([30, 60, 120, 150]))
    wax = waves(15, angle, noise(SIDE, 20, rng) * 22) * 0.75 + noise(SIDE, 6, rng) * 0.5
    cover = np.where(scene.objects, wax < 0.8, wax < 0.42)
    strong = np.clip(vivid(scene.colour, 1.6), 0, 1) * 0.95
    sheet = paint(flat(rgb(250, 247, 238)), cover, strong)
    rough = scene.edges(7, objects_only=True) & (noise(SIDE, 6, rng) < 0.72)
    return blur(paint(sheet, rough, strong * 0.5), 1.0)
