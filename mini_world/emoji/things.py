"""What there is in the emoji world: classes, and the individuals of each.

An individual is a thing as one vendor drew it, perhaps in other hues. Fluent's three sets are one
designer's same individuals in three styles (shaded, flat, line): only the flat one counts here, the
other two are a check that no renderer of ours is behind.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from mini_world.emoji import sets

VENDORS = ("twemoji", "noto", "noto-v1", "emojione", "fluent-emoji-flat")
HELD_OUT_VENDOR = "fxemoji"  # nothing that it drew is trained on

# word in captions: names in the sets, the first that a vendor has; fxemoji has its own names
CLASSES: dict[str, tuple[str, ...]] = {
    "cat": ("cat-face", "cat"),
    "dog": ("dog-face", "dog"),
    "fox": ("fox", "fox-face"),
    "lion": ("lion", "lion-face"),
    "tiger": ("tiger-face", "tiger"),
    "bear": ("bear", "bear-face"),
    "panda": ("panda", "panda-face"),
    "koala": ("koala",),
    "pig": ("pig-face", "pig"),
    "cow": ("cow-face", "cow"),
    "mouse": ("mouse-face", "mouse"),
    "rabbit": ("rabbit-face", "bunny"),
    "frog": ("frog", "frog-face"),
    "monkey": ("monkey-face", "monkey"),
    "elephant": ("elephant",),
    "horse": ("horse-face", "horse"),
    "penguin": ("penguin",),
    "owl": ("owl",),
    "rooster": ("rooster",),
    "turtle": ("turtle",),
    "fish": ("tropical-fish", "fish"),
    "blowfish": ("blowfish",),
    "octopus": ("octopus",),
    "crab": ("crab",),
    "whale": ("spouting-whale", "whale"),
    "butterfly": ("butterfly",),
    "bee": ("honeybee",),
    "ladybug": ("lady-beetle",),
    "snail": ("snail",),
    "apple": ("red-apple",),
    "pear": ("pear",),
    "banana": ("banana",),
    "grapes": ("grapes",),
    "lemon": ("lemon",),
    "strawberry": ("strawberry",),
    "pineapple": ("pineapple",),
    "cherries": ("cherries",),
    "tomato": ("tomato",),
    "mushroom": ("mushroom",),
    "hamburger": ("hamburger",),
    "pizza": ("pizza", "sliceofpizza"),
    "cake": ("birthday-cake",),
    "doughnut": ("doughnut",),
    "tree": ("deciduous-tree",),
    "pine": ("evergreen-tree", "evergreen"),
    "palm": ("palm-tree",),
    "cactus": ("cactus",),
    "sunflower": ("sunflower",),
    "tulip": ("tulip",),
    "rose": ("rose",),
    "car": ("automobile",),
    "bus": ("bus",),
    "truck": ("delivery-truck",),
    "tractor": ("tractor",),
    "train": ("locomotive", "steamlocomotive"),
    "bicycle": ("bicycle",),
    "airplane": ("airplane",),
    "helicopter": ("helicopter",),
    "rocket": ("rocket",),
    "sailboat": ("sailboat",),
    "house": ("house", "housebuilding"),
    "castle": ("castle", "european-castle"),
    "tent": ("tent",),
    "guitar": ("guitar",),
    "violin": ("violin",),
    "trumpet": ("trumpet",),
    "hammer": ("hammer",),
    "key": ("key",),
    "umbrella": ("umbrella",),
    "balloon": ("balloon",),
    "crown": ("crown",),
    "bell": ("bell",),
    "camera": ("camera",),
    "robot": ("robot", "robot-face"),
    "ghost": ("ghost",),
    "skull": ("skull",),
    "snowman": ("snowman-without-snow",),
}  # fmt: skip
KINDS = sorted(CLASSES)

# What the first stretch of the UNet's training sees; widened when its gates hold.
CORE_KINDS = sorted([
    "apple", "balloon", "bus", "cactus", "car", "cat", "dog", "fish", "guitar", "house",
    "mushroom", "owl", "penguin", "pineapple", "rocket", "sailboat", "strawberry", "turtle",
])  # fmt: skip

HUES = 8  # steps of a full turn of hue; 0 is the vendor's own colours
HELD_OUT_HUES = (3, 6)  # of training vendors: those individuals are never trained on


@dataclass(frozen=True)
class Individual:
    kind: str
    vendor: str
    hue: int = 0  # of HUES: every colour's hue is turned by so much

    @property
    def held_out(self) -> bool:
        return self.vendor == HELD_OUT_VENDOR or self.hue in HELD_OUT_HUES


def name_of(kind: str, vendor: str) -> str | None:
    """What a vendor calls its drawing of a class, None if it has none."""
    return next((name for name in CLASSES[kind] if sets.has(vendor, name)), None)


@lru_cache(maxsize=512)
def vendors_of(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """Who drew a class: the vendors that training sees, or the one it does not."""
    among = (HELD_OUT_VENDOR,) if held_out else VENDORS
    return tuple(vendor for vendor in among if name_of(kind, vendor) is not None)


@lru_cache(maxsize=1024)
def drawing(who: Individual) -> Image.Image:
    """RGBA, sets.GLYPH pixels square."""
    name = name_of(who.kind, who.vendor)
    if name is None:
        raise KeyError(f"{who.vendor} drew no {who.kind}")
    return turned_hue(Image.fromarray(sets.glyph(who.vendor, name)), who.hue / HUES)


def turned_hue(image: Image.Image, turn: float) -> Image.Image:
    """Every colour's hue turned by a share of the circle; lightness stays about the same."""
    if turn == 0:
        return image
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    shifted = hue.point(lambda h: round(h + 256 * turn) % 256)
    recoloured = Image.merge("HSV", (shifted, saturation, value)).convert("RGB")
    recoloured.putalpha(image.getchannel("A"))
    return recoloured


COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")


@lru_cache(maxsize=1024)
def colour_word(who: Individual) -> str:
    """The name of the colour that covers most of an individual, "" where none leads clearly."""
    pixels = np.asarray(drawing(who).resize((48, 48), Image.Resampling.BOX))
    solid = pixels[pixels[..., 3] > 128][:, :3] / 255
    names = [_word(*colorsys.rgb_to_hsv(*rgb)) for rgb in solid.tolist()]
    counts = {name: names.count(name) / max(1, len(names)) for name in set(names)}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > 0.5 and best else ""


def _word(hue: float, saturation: float, value: float) -> str:
    if value < 0.3:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.85 else ""
    degrees = hue * 360
    if 8 <= degrees < 48 and value < 0.8:
        return "brown"
    for limit, name in (
        (14, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (255, "blue"),
        (300, "purple"), (342, "pink"),
    ):  # fmt: skip
        if degrees < limit:
            return "pink" if name == "red" and saturation < 0.45 else name
    return "red" if saturation > 0.5 else "pink"
