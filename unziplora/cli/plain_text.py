"""Sentences and names as a terminal can show them."""

from __future__ import annotations

import errno

from unziplora.files import printable


def plain_lines(text: str) -> str:
    """`text` without what a terminal would obey: a file's header may hold anything."""
    return "\n".join(map(printable, text.split("\n")))


def too_long_a_name(error: Exception) -> str | None:
    """Two sentences on a name that no disk takes; None for any other error."""
    if not (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG):
        return None
    name = printable(str(error.filename))[:40]
    return f"The name {name}... is longer than a disk allows. Choose a shorter one."
