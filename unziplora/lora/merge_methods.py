"""How LoRAs become one file, as data: command line, page, API and ComfyUI's node read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unziplora.errors import InvalidInput

DEFAULT_MU = 1.0  # halves what content does along the style's directions; not the paper's value
_MOST_MU = 1e6  # leaves a millionth


@dataclass(frozen=True)
class MergeMethod:
    """summary: for help texts. projects: it takes a content and then a style, and projects the
    content against the style with a number mu (projection.py) before they are added up."""

    name: str
    summary: str
    projects: bool = False

    def described(self, names: Sequence[str], mu: float) -> str:
        """One sentence for headers and cards, without its full stop. names: of the parts."""
        if not self.projects:
            return "The sum of " + " and ".join(names)
        content, style = names
        return f"The sum of {content}, projected against {style} (NP-LoRA, mu {mu:g}), and {style}"

    def recorded(self, mu: float) -> dict[str, object]:
        """What a merged file's header keeps of it."""
        return {"how": self.name, "mu": mu} if self.projects else {"how": self.name}

    def check(self, roles: Sequence[str | None], mu: float) -> None:
        """roles: of the parts' files, None where a header does not say it. Raises InvalidInput."""
        if not self.projects:
            return
        if not 0 <= mu <= _MOST_MU:  # also where it is not a number
            raise InvalidInput(f"mu is {mu:g}. Choose a number from 0 to {_MOST_MU:.0f}.")
        if len(roles) != 2:
            raise InvalidInput(
                f"The merge method {self.name} takes two files, not {len(roles)}. "
                "Name the content first and then the style."
            )
        if tuple(roles) == ("style", "content"):
            raise InvalidInput(
                f"The merge method {self.name} changes the first file, which is a style here. "
                "Name the content first and then the style."
            )


MERGE_METHODS = {
    method.name: method
    for method in (
        MergeMethod("add", "the exact sum"),
        MergeMethod("np", "content gives way where the style reads (NP-LoRA)", projects=True),
    )
}


def find_merge_method(name: str) -> MergeMethod:
    """Raises InvalidInput for a name that is not known."""
    if name not in MERGE_METHODS:
        raise InvalidInput(
            f"The merge method {name[:40]!r} is not known. "
            f"Choose one of {', '.join(MERGE_METHODS)}."
        )
    return MERGE_METHODS[name]
