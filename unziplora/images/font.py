"""The font of captions and plots."""

from __future__ import annotations

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Before 10.1, Pillow has only a bitmap font of one size. Then the first of these that is there is
# taken; a host that ships a font puts it in front.
FILES = ["DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc"]


def font_of(size: int) -> Font:
    """size: pixels of a line."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        pass
    for name in FILES:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default()
