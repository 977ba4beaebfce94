"""Every error that a user can meet is explained, and what is explained is what the code says."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from tests.messages import messages

PAGE = ROOT / "docs" / "troubleshooting.md"


def rows() -> dict[str, tuple[str, str]]:
    """By the beginning of an error, its cause and its remedy."""
    found = {}
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| it says")):
            said, why, do = re.split(r"(?<!\\) \| ", line.strip("| "))
            plain = [text.replace("\\|", "|").replace("&lt;", "<").replace("&gt;", ">")
                     for text in (said, do)]  # fmt: skip
            found[" ".join(plain)] = (why, do)
    return found


def test_every_error_is_explained() -> None:
    said = messages()
    assert len(said) > 130
    missing = [f"{text!r} ({file})" for text, file in said.items() if text not in rows()]
    assert not missing, "add a row to docs/troubleshooting.md for: " + "\n".join(missing)


def test_nothing_is_explained_that_the_code_does_not_say() -> None:
    stale = rows().keys() - messages().keys()
    assert not stale, "docs/troubleshooting.md has rows too many: " + "\n".join(stale)


def test_every_row_has_a_cause_and_a_remedy() -> None:
    for said, (why, do) in rows().items():
        assert len(why) > 8, said
        assert do, said
