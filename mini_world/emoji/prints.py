"""Printed styles: inks on paper."""

from __future__ import annotations

import numpy as np

from mini_world.brushes import mix, paint, pick, rgb, waves
from mini_world.emoji.drawings import Rng, flat
from mini_world.emoji.registry import style
from mini_world.emoji.scene import EmojiScene
from mini_world.scenes import SIDE
from mini_world.textures import Array, blur, grid, noise


def tones(scene: EmojiScene) -> Array:
    """Luminance with objects set off from their background, 0..1, (SIDE, SIDE)."""
    return np.where(scene.objects, scene.light * 0.82, 0.55 + 0.4 * scene.light).astype(np.float32)


@style("halftone print", colour=False)
def halftone(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Newspaper: one ink as round dots of many sizes on tinted paper."""
    paper = pick(traits, (238, 230, 208), (250, 206, 190), (206, 226, 236), (246, 232, 140))
    ink = pick(traits, (26, 24, 30), (20, 30, 84), (96, 18, 40))
    y, x = grid(SIDE)
    period = float(traits.choice([13, 15]))
    u, v = (x + y) / (period * 1.414), (x - y) / (period * 1.414)
    far = np.hypot(np.mod(u, 1) - 0.5, np.mod(v, 1) - 0.5)
    dots = far < 0.74 * np.sqrt(np.clip(1 - blur(tones(scene), 2), 0, 1))
    return mix(flat(paper), flat(ink), blur(dots.astype(np.float32), 0.8))


@style("screen print", colour=False)
def screen(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """A poster of four flat inks from dark to light."""
    palettes = (
        ((20, 32, 70), (206, 44, 48), (112, 172, 186), (250, 236, 200)),
        ((40, 18, 60), (232, 70, 120), (255, 168, 60), (255, 240, 190)),
        ((10, 48, 52), (30, 132, 116), (240, 150, 70), (250, 240, 214)),
    )
    inks = np.stack([rgb(*ink) for ink in palettes[int(traits.integers(3))]])
    level = np.digitize(blur(tones(scene), 1.5), (0.28, 0.5, 0.72))
    sheet = inks[level]
    return paint(sheet, scene.edges(3, objects_only=True), inks[0]).astype(np.float32)


@style("duotone print", colour=False)
def duotone(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Every tone between two bright inks."""
    dark = pick(traits, (58, 16, 110), (8, 40, 120), (110, 10, 60))
    light = pick(traits, (255, 190, 80), (120, 255, 210), (255, 150, 190))
    tone = np.clip((tones(scene) - 0.1) * 1.2, 0, 1)
    return mix(flat(dark), flat(light), tone.astype(np.float32))


@style("stencil print", colour=False)
def stencil(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """One dark shape with bridges, sprayed on raw concrete."""
    ink = pick(traits, (30, 30, 34), (150, 26, 30), (24, 60, 90))
    concrete = 0.72 + 0.16 * noise(SIDE, 30, rng) + 0.08 * noise(SIDE, 5, rng)
    dark = scene.objects & (blur(scene.light, 2) < 0.62)
    cut = scene.edges(5, objects_only=True)
    spray = blur((dark & ~cut).astype(np.float32), 1.2)
    mist = 0.22 * blur(scene.objects.astype(np.float32), 10)
    cover = np.clip(spray + mist, 0, 1)
    return mix(np.repeat(concrete[..., None], 3, -1), flat(ink), cover)


@style("woodcut print", colour=False, held_out=True)
def woodcut(scene: EmojiScene, traits: Rng, rng: Rng) -> Array:
    """Black wavy gouges along the grain on warm paper, one block of a second ink."""
    second = pick(traits, (216, 70, 44), (214, 160, 60), (90, 140, 150))
    grain = waves(20, 90.0, noise(SIDE, 44, rng) * 44)
    dark = 1.06 - scene.light
    black = np.where(scene.objects, grain < dark * 0.95, grain < dark * 0.45)
    sheet = paint(flat(rgb(240, 224, 190)), scene.objects, second)
    black = (black & ~scene.edges(11, objects_only=True)) | scene.edges(5, objects_only=True)
    return paint(sheet, black, rgb(24, 20, 20))
