"""Painted, photographed and screen styles."""

from __future__ import annotations

import numpy as np

from mini_world.brushes import mix, paint, pick, rgb, vivid
from mini_world.emoji.drawings import Rng, flat
from mini_world.emoji.registry import style
from mini_world.emoji.scene import EmojiScene
from mini_world.scenes import SIDE
from mini_world.textures import Array, blur, cells, grid, noise


@style("gouache painting", colour=True)
def gouache(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Flat matte layers in few tones with ragged edges; no outline."""
    y, x = grid(SIDE)
    reach = traits.uniform(9, 13)
    sy = np.clip(y + (noise(SIDE, 9, rng) - 0.5) * reach, 0, SIDE - 1).astype(int)
    sx = np.clip(x + (noise(SIDE, 9, rng) - 0.5) * reach, 0, SIDE - 1).astype(int)
    soft = blur(scene.colour, 2.5)[sy, sx]
    tones = np.round(soft * 4.5) / 4.5
    matte = mix(vivid(tones.astype(np.float32), 1.1), flat(rgb(120, 96, 110)), 0.2)
    brush = 0.9 + 0.16 * noise(SIDE, 40, rng)
    return np.clip(matte * brush[..., None], 0, 1)


@style("watercolor painting", colour=True)
def watercolor(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Washes that bleed a little over their outline and pool at the rim, on white paper."""
    y, x = grid(SIDE)
    sy = np.clip(y + (noise(SIDE, 20, rng) - 0.5) * 17, 0, SIDE - 1).astype(int)
    sx = np.clip(x + (noise(SIDE, 20, rng) - 0.5) * 17, 0, SIDE - 1).astype(int)
    wet = float(traits.uniform(1.8, 2.6))
    wash = blur(scene.colour[sy, sx], wet)
    inside = blur(scene.objects[sy, sx].astype(np.float32), wet)
    strength = (0.55 + 0.65 * noise(SIDE, 34, rng)) * (0.35 + 0.7 * inside)
    pooled = np.clip(strength + 1.1 * inside * (1 - inside), 0, 1)
    return np.clip(mix(flat(rgb(252, 250, 244)), vivid(wash, 1.6) * 0.96, pooled), 0, 1)


@style("pointillist painting", colour=True, held_out=True)
def pointillist(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Dots of pure, scattered hues on cream."""
    dots = cells(SIDE, traits.uniform(13, 15), rng)
    colour = vivid(scene.colour[dots.centre_y, dots.centre_x], 1.5)
    hue = np.stack([dots.shade, np.mod(dots.shade * 7, 1), np.mod(dots.shade * 13, 1)], -1)
    colour = np.clip(colour + 0.4 * (hue - 0.5), 0, 1).astype(np.float32)
    return paint(flat(rgb(250, 244, 226)), dots.from_centre < 0.47, colour)


@style("mural painting", colour=True)
def mural(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Old fresco: faded earth colours on plaster with dark cracks and bare patches."""
    plaster = pick(traits, (222, 206, 178), (206, 200, 190), (226, 198, 160))
    faded = mix(vivid(scene.colour, 0.75), flat(plaster), 0.38)
    cracks = cells(SIDE, float(traits.uniform(52, 62)), rng)
    bare = noise(SIDE, 26, rng) > 0.72
    wall = np.where(bare[..., None], mix(faded, flat(plaster), 0.75), faded)
    wall = wall * (0.86 + 0.24 * noise(SIDE, 16, rng)[..., None])
    return np.clip(paint(wall, cracks.rim < 0.045, rgb(96, 76, 60)), 0, 1)


@style("x-ray photo", colour=False)
def x_ray(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Pale blue, see-through shapes that are brightest at their edges, on black."""
    tint = pick(traits, (170, 220, 255), (190, 255, 230), (220, 220, 235))
    body = blur(scene.objects.astype(np.float32), 3)
    inside = body * (0.2 + 0.4 * (1 - blur(scene.light, 2)))
    rim = blur(scene.edges(5, objects_only=True).astype(np.float32), 2.5)
    return mix(flat(rgb(4, 8, 14)), flat(tint), np.clip(inside + 0.75 * rim, 0, 1))


@style("night vision photo", colour=False)
def night_vision(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Green phosphor, a round vignette, dark lines of a screen."""
    y, x = grid(SIDE)
    tone = blur(scene.light * np.where(scene.objects, 1.0, 0.5), 2)
    lines = np.mod(y, 12) < 4
    far = np.hypot(x / SIDE - 0.5, y / SIDE - 0.5)
    tone = np.clip((tone * 1.05 + 0.06) * np.clip(1.5 - 1.9 * far, 0, 1), 0, 1)
    tone = tone * np.where(lines, 0.62, 1.0)
    return mix(flat(rgb(2, 22, 8)), flat(rgb(150, 255, 130)), tone.astype(np.float32))


@style("glitch art", colour=True, held_out=True)
def glitch(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Bands slipped sideways; red and blue apart."""
    slip = int(traits.integers(7, 11))
    tall = int(traits.choice([18, 24, 30]))
    bands = rng.integers(-2, 3, SIDE // tall + 1) * int(traits.integers(7, 12))
    y, x = (a.astype(int) for a in grid(SIDE))
    moved = scene.colour[y, (x + bands[y // tall]) % SIDE]
    apart = [np.roll(moved[..., 0], -slip, 1), moved[..., 1], np.roll(moved[..., 2], slip, 1)]
    screen = np.clip(np.stack(apart, -1) * 1.08 - 0.02, 0, 1)
    lines = np.mod(y, 12) < 3
    return np.where(lines[..., None], screen * 0.72, screen).astype(np.float32)
