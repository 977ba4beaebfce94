"""Emoji sets of several vendors as images.

Each package holds one vendor's drawings as SVG (icons.json: bodies, sizes, aliases). They stay
outside the repository: the environment variable MINI_WORLD_EMOJI names the folder. All sets are
under permissive licences (mini_world/README.md names them); none is share-alike. The variable may
also name a pack (install.py), for a machine that reaches no registry and has no resvg.
"""

from __future__ import annotations

import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACKAGES = {
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "fluent-emoji": "@iconify-json/fluent-emoji@1.2.7",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "fluent-emoji-high-contrast": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
}
FOLDER_VARIABLE = "MINI_WORLD_EMOJI"
DEFAULT_FOLDER = Path.home() / ".cache" / "mini_world_emoji"
PACK = "glyphs"  # folder of a pack: VENDOR/NAME.png
GLYPH = 256  # pixels of a rendered drawing's longer side


def folder() -> Path:
    """Where the packages are installed."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def missing() -> str:
    """A sentence that says what is missing to draw this world, or "" when nothing is."""
    if (folder() / PACK).exists():
        return ""
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        return "resvg-py is not installed. Install it with: pip install resvg-py"
    absent = [name for name in PACKAGES if not _icons_path(name).exists()]
    if absent:
        return (
            f"The emoji sets {', '.join(absent)} are not in {folder()}. Install them with: "
            f"python -m mini_world.emoji.install --install DIR, and set {FOLDER_VARIABLE}=DIR."
        )
    return ""


def _icons_path(vendor: str) -> Path:
    return folder() / "node_modules" / "@iconify-json" / vendor / "icons.json"


@lru_cache(maxsize=len(PACKAGES))
def _icons(vendor: str) -> dict[str, Any]:
    path = _icons_path(vendor)
    if not path.exists():
        raise FileNotFoundError(missing())
    icons: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return icons


def _resolved(vendor: str, name: str) -> str | None:
    icons = _icons(vendor)
    for spelled in (name, name.replace("-", "")):
        found = icons.get("aliases", {}).get(spelled, {}).get("parent", spelled)
        if found in icons["icons"]:
            return str(found)
    return None


def _packed(vendor: str, name: str) -> Path:
    return folder() / PACK / vendor / f"{name}.png"


def has(vendor: str, name: str) -> bool:
    """Whether a vendor drew the thing that the sets call `name`."""
    if (folder() / PACK).exists():
        return _packed(vendor, name).exists()
    return _resolved(vendor, name) is not None


def svg(vendor: str, name: str) -> str:
    """The drawing as an SVG document. Raises KeyError if the vendor has none."""
    found = _resolved(vendor, name)
    if found is None:
        raise KeyError(f"{vendor} has no drawing named {name}")
    icons = _icons(vendor)
    icon = icons["icons"][found]
    size = {key: icon.get(key, icons.get(key, 16)) for key in ("width", "height")}
    box = (icon.get("left", 0), icon.get("top", 0), size["width"], size["height"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(str(b) for b in box)}" width="{box[2]}" height="{box[3]}">'
        f"{icon['body']}</svg>"
    )


@lru_cache(maxsize=2048)
def glyph(vendor: str, name: str) -> np.ndarray:
    """The drawing cut to its bounding box and centred: (GLYPH, GLYPH, 4) uint8, RGBA."""
    if (folder() / PACK).exists():
        return np.asarray(Image.open(_packed(vendor, name)).convert("RGBA"))
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg(vendor, name), width=GLYPH, height=GLYPH))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox()
    image = image.crop(box)
    scale = GLYPH / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    page = Image.new("RGBA", (GLYPH, GLYPH), (0, 0, 0, 0))
    page.paste(image, ((GLYPH - size[0]) // 2, (GLYPH - size[1]) // 2))
    return np.asarray(page)
