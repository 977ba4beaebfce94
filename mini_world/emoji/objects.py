"""Styles made of a material: textiles, tiles, paper, stone, wood, toys."""

from __future__ import annotations

import numpy as np

from mini_world.brushes import mix, paint, pick, rgb, sample, stitches, vivid, waves
from mini_world.emoji.drawings import Rng, flat
from mini_world.emoji.registry import style
from mini_world.emoji.scene import EmojiScene, border
from mini_world.scenes import SIDE
from mini_world.textures import Array, blur, cells, grid, noise


def relief(height: Array, reach: int = 4) -> Array:
    """How much a surface faces the upper left, about -1..1. height: (SIDE, SIDE), 0..1."""
    return (np.roll(height, -reach, 0) - np.roll(height, reach, 0)) + (
        np.roll(height, -reach, 1) - np.roll(height, reach, 1)
    )


@style("felt textile", colour=True)
def felt(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Soft patches of felt with a fuzzy nap and a running stitch inside the outline."""
    thread = pick(traits, (250, 246, 236), (40, 36, 44), (250, 220, 120))
    nap = noise(SIDE, 3, rng) * 0.5 + noise(SIDE, 7, rng) * 0.5
    soft = mix(blur(scene.colour, 2.0), flat(rgb(150, 140, 140)), 0.12)
    cloth = soft * (0.72 + 0.5 * nap[..., None])
    solid = blur(scene.objects.astype(np.float32), 6)
    shadow = np.clip(np.roll(solid, (6, 6), (0, 1)) - scene.objects, 0, 1)
    cloth = cloth * (1 - 0.5 * shadow[..., None])
    inside = blur(scene.objects.astype(np.float32), 5) > 0.86
    seam = np.asarray(blur(border(inside & scene.objects).astype(np.float32), 1.5)) > 0.16
    y, x = grid(SIDE)
    dash = np.mod((x + 1.7 * y) / 16, 1) < 0.58
    return np.clip(paint(cloth, seam & dash & scene.objects, thread), 0, 1)


@style("embroidered textile", colour=True)
def embroidered(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Satin stitches on coarse linen."""
    linen = pick(traits, (226, 214, 190), (206, 216, 222), (84, 96, 122))
    weave = 0.5 + 0.25 * np.sign(waves(12, 0) - 0.5) + 0.25 * np.sign(waves(12, 90) - 0.5)
    ground = flat(linen) * (0.82 + 0.22 * weave[..., None])
    stitches = cells(SIDE, 8, rng, aspect=3.5, degrees=float(traits.choice([30, 60, 120, 150])))
    colour = vivid(sample(scene, stitches.centre_y, stitches.centre_x), 1.2)  # type: ignore[arg-type]
    light = 0.55 + 0.35 * stitches.shade + 0.6 * np.clip(stitches.rim, 0, 0.5)
    surface = np.where(scene.objects[..., None], np.clip(colour * light[..., None], 0, 1), ground)
    rim = border(scene.objects)
    return surface * (1 - 0.5 * blur(rim.astype(np.float32), 2.0)[..., None])


@style("quilted textile", colour=True)
def quilted(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Stuffed diamonds, sewn along both diagonals."""
    y, x = grid(SIDE)
    size = float(traits.uniform(24, 28))
    u, v = (x + y) / size, (x - y) / size
    fu, fv = np.mod(u, 1), np.mod(v, 1)
    puff = np.sin(np.pi * fu) * np.sin(np.pi * fv)
    lit = 0.72 + 0.36 * np.sqrt(puff) + 0.22 * (0.5 - fu) * puff
    seam = np.minimum(np.minimum(fu, 1 - fu), np.minimum(fv, 1 - fv)) < 0.06
    cloth = mix(blur(scene.colour, 1.5), flat(rgb(244, 226, 226)), 0.14) * lit[..., None]
    return np.clip(paint(cloth, seam, rgb(88, 66, 84)), 0, 1)


@style("knitted textile", colour=True, held_out=True)
def knitted(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Rows of stitches, each one colour."""
    wide, tall = traits.uniform(19, 21), traits.uniform(13, 15)
    cy, cx, fx, fy = stitches(wide, tall)
    light = 0.5 + 0.6 * np.sin(np.pi * fy) * (0.5 + 0.5 * np.sin(np.pi * fx))
    wool = mix(scene.colour[cy, cx], np.ones_like(scene.colour), 0.1)
    return np.clip(wool * light[..., None], 0, 1)


@style("ceramic tiles", colour=False)
def ceramic(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Blue paint on four by four white tiles."""
    blue = pick(traits, (24, 60, 150), (20, 90, 140), (44, 44, 130))
    dark = np.where(scene.objects, 0.3 + 0.75 * (1 - scene.light), 0.16 * (1 - scene.light))
    wash = blur(dark.astype(np.float32), 3) * (0.75 + 0.5 * noise(SIDE, 18, rng))
    brush = blur(scene.edges(5, objects_only=True).astype(np.float32), 1.4)
    sheet = mix(flat(rgb(248, 250, 250)), flat(blue), np.clip(0.75 * wash + 0.8 * brush, 0, 1))
    y, x = grid(SIDE)
    joint = (np.mod(x, 64) < 4) | (np.mod(y, 64) < 4)
    return paint(sheet, joint, rgb(158, 156, 150))


@style("cardboard paper", colour=False)
def cardboard(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Layers of brown board; the lowest one shows its ribs."""
    light, dark = rgb(214, 172, 122), rgb(122, 84, 50)
    level = np.round(blur(scene.light, 2) * 3) / 3
    board = mix(flat(dark), flat(light), level.astype(np.float32))
    ribs = mix(flat(rgb(176, 134, 90)), flat(rgb(150, 110, 70)), waves(14, 0))
    surface = np.where(scene.objects[..., None], board, ribs)
    edge = blur(scene.edges(3, objects_only=True).astype(np.float32), 2)
    shade, lit = np.roll(edge, (5, 5), (0, 1)), np.roll(edge, (-3, -3), (0, 1))
    grain = 0.93 + 0.14 * noise(SIDE, 5, rng)
    return np.clip(
        surface * grain[..., None] * (1 - 0.6 * shade[..., None]) + 0.2 * lit[..., None], 0, 1
    )


@style("marble sculpture", colour=False)
def marble(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """A white relief with grey veins."""
    depth = blur(1 - scene.edges(7).astype(np.float32), 5) * 0.7
    depth = depth + 0.5 * blur(scene.objects.astype(np.float32), 6) + 0.25 * blur(scene.light, 4)
    tint = pick(traits, (244, 242, 238), (232, 224, 208), (214, 226, 220))
    vein = waves(70, float(traits.choice([30, 60, 120, 150])), noise(SIDE, 40, rng) * 90)
    stone = flat(tint) * (1 - 0.3 * np.clip(1 - vein * 7, 0, 1)[..., None])
    ground = np.where(scene.objects, 1.0, 0.72)
    return np.clip(stone * (ground * (0.93 + 0.8 * relief(depth)))[..., None], 0, 1)


@style("wooden sculpture", colour=False)
def wooden(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Carved and stained wood with its grain."""
    light, dark = rgb(220, 168, 104), rgb(104, 58, 28)
    grain = waves(26, 80 + float(traits.choice([0, 10, 20])), noise(SIDE, 50, rng) * 70)
    tone = np.where(scene.objects, 0.25 + 0.7 * scene.light, 0.2)
    tone = np.clip(tone + 0.22 * (grain - 0.5), 0, 1)
    depth = blur(1 - scene.edges(7).astype(np.float32), 4) * 0.8
    depth = depth + 0.4 * blur(scene.objects.astype(np.float32), 5)
    wood = mix(flat(dark), flat(light), tone.astype(np.float32))
    return np.clip(wood * (0.9 + 0.6 * relief(depth))[..., None], 0, 1)


@style("toy bricks", colour=True)
def bricks(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Plastic plates with one round stud each."""
    size = 16
    y, x = grid(SIDE)
    cy = np.clip((np.floor(y / size) + 0.5) * size, 0, SIDE - 1).astype(int)
    cx = np.clip((np.floor(x / size) + 0.5) * size, 0, SIDE - 1).astype(int)
    colour = vivid(blur(scene.colour, 3)[cy, cx], 1.45)
    fy, fx = np.mod(y, size) / size - 0.5, np.mod(x, size) / size - 0.5
    far = np.hypot(fy, fx)
    lit = np.where(far < 0.33, 1.04 - 0.5 * (fx + fy), 0.95)
    lit = np.where(np.abs(far - 0.33) < 0.06, 0.78, lit)
    gap = (np.abs(fy) > 0.46) | (np.abs(fx) > 0.46)
    return np.clip(colour * np.where(gap, 0.55, lit)[..., None], 0, 1)
