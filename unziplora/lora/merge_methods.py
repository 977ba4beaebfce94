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
    content against the style with a number mu (projection.py) before they are added up. learns: it
    takes the same two, and learns on a model how much of each column is added up (ziplora/)."""

    name: str
    summary: str
    projects: bool = False
    learns: bool = False

    def described(self, names: Sequence[str], mu: float) -> str:
        """One sentence for headers and cards, without its full stop. names: of the parts."""
        if self.projects:
            content, style = names
            against = f"{content}, projected against {style} (NP-LoRA, mu {mu:g})"
            return f"The sum of {against}, and {style}"
        learned = ", with mergers learned by ZipLoRA" if self.learns else ""
        return "The sum of " + " and ".join(names) + learned

    def recorded(self, mu: float) -> dict[str, object]:
        """What a merged file's header keeps of it."""
        return {"how": self.name, "mu": mu} if self.projects else {"how": self.name}

    def check(self, roles: Sequence[str | None], mu: float) -> None:
        """roles: of the parts' files, None where a header does not say it. Raises InvalidInput."""
        if not (self.projects or self.learns):
            return
        if self.projects and not 0 <= mu <= _MOST_MU:  # also where it is not a number
            raise InvalidInput(f"mu is {mu:g}. Choose a number from 0 to {_MOST_MU:.0f}.")
        if len(roles) != 2:
            raise InvalidInput(
                f"The merge method {self.name} takes two files, not {len(roles)}. "
                "Name the content first and then the style."
            )
        if tuple(roles) == ("style", "content"):
            raise InvalidInput(
                f"The merge method {self.name} takes the content first, and the first file is a "
                "style. Name the content first and then the style."
            )


MERGE_METHODS = {
    method.name: method
    for method in (
        MergeMethod("add", "the exact sum"),
        MergeMethod("np", "content gives way where the style reads (NP-LoRA)", projects=True),
        MergeMethod("zip", "learns on the model what each keeps (ZipLoRA)", learns=True),
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


def summaries(*, learning: bool = True) -> str:
    """What each method does, for help texts. learning: also those that need a model."""
    known = (m for m in MERGE_METHODS.values() if learning or not m.learns)
    return "; ".join(f"{m.name}: {m.summary}" for m in known)
