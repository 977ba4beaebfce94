"""Pieces of HTML that all tabs use. Everything a user or a file says is escaped here or by the
caller, where it becomes HTML."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

_SIDE = 512  # pixels, of an image on the page


def message(text: str, *, error: bool = False) -> str:
    """A sentence for the user, which a screen reader reads at once; nothing for no text."""
    if not text:
        return ""
    kind = "uz-error" if error else "uz-note"
    return f'<div class="{kind}" role="{"alert" if error else "status"}">{escape(text)}</div>'


def aside(text: str) -> str:
    """A quiet line."""
    return f'<div class="uz-aside">{escape(text)}</div>'


def button(
    label: str,
    to: str,
    request: Mapping[str, Any],
    spoken: str,
    *,
    open_tab: str | None = None,
    kind: str = "",
) -> str:
    """A button inside HTML, whose request page.js hands to the hidden button `uz_ask_TO`. spoken:
    what a screen reader says. open_tab: the tab of the page that it opens too. kind: a class of its
    own."""
    opens = f' data-tab="{open_tab}"' if open_tab else ""
    return (
        f'<button type="button" class="{f"uz-button {kind}".strip()}" data-to="{to}"{opens} '
        f'data-uz="{escape(json.dumps(request))}" aria-label="{escape(spoken)}">{label}</button>'
    )


def tab_button(label: str, tab: str) -> str:
    """A button inside HTML that opens a tab of the page."""
    return f'<button type="button" class="uz-button" data-tab="{tab}">{escape(label)}</button>'


def group_name(plain: str, technical: str) -> str:
    """An attention group in plain words, with its technical name behind."""
    return f"{escape(plain)} <code>{escape(technical)}</code>"


def image(path: Path | None, spoken: str) -> str:
    """An image of a file, or an empty place where there is none."""
    url = data_url(path) if path is not None else None
    return f'<img src="{url}" alt="{escape(spoken)}">' if url else '<div class="uz-blank"></div>'


def number(value: float) -> str:
    """600, 0.001 or 5e-5."""
    if not 0 < abs(value) < 1e-3:
        return f"{value:g}"
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def progress_bar(percent: float, spoken: str) -> str:
    """How far something is. spoken: what it is, for a screen reader."""
    return (
        f'<div class="uz-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}" aria-label="{spoken}">'
        f'<div style="width:{percent:.1f}%"></div></div>'
    )


def duration(seconds: float) -> str:
    """6:10, or 1:06:10."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough_duration(seconds: float) -> str:
    """40 s, 11 min, or 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def data_url(path: Path) -> str | None:
    """A small JPEG, so that the page needs no route to files; None where there is no image, or a
    link: what that leads to is not ours to show."""
    try:
        if path.is_symlink():
            return None
        return _data_url(path, path.stat().st_mtime_ns)
    except (OSError, Image.DecompressionBombError):
        return None


@lru_cache(maxsize=64)
def _data_url(path: Path, changed: int) -> str:
    with Image.open(path, formats=("PNG",)) as image:
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
