"""Block separation (paper, section 3.3.3): who is full where, as a table by architecture.

A branch that is full in a group trains all columns there; everywhere else it is limited to N %.
Groups have their sgm names; diffusers' are in the comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unziplora.errors import InvalidInput
from unziplora.method.prompts import BRANCHES, BranchName

BlockTable = Mapping[BranchName, tuple[str, ...]]

# The authors' train_unziplora.py:1531-1543 (their dictionaries list what is limited).
_SDXL: BlockTable = {
    "content": (
        "output_blocks.0.1",  # up_blocks.0.attentions.0
        "output_blocks.2.1",  # up_blocks.0.attentions.2
    ),
    "style": (
        "output_blocks.1.1",  # up_blocks.0.attentions.1
        "output_blocks.3.1",  # up_blocks.1.attentions.0
        "output_blocks.4.1",  # up_blocks.1.attentions.1
        "output_blocks.5.1",  # up_blocks.1.attentions.2
    ),
}
# Provisional: the paper shows KOALA results but prints no table for it.
_KOALA: BlockTable = {
    "content": ("output_blocks.0.1",),  # up_blocks.0.attentions.0
    "style": (
        "output_blocks.1.1",  # up_blocks.0.attentions.1
        "output_blocks.2.1",  # up_blocks.1.attentions.0
        "output_blocks.3.1",  # up_blocks.1.attentions.1
    ),
}
# Measured by `python -m benchmarks.block_probe`: three of its eleven groups answer to words, one to
# what is shown and two to how. SDXL's table would free the style where the content is.
_MINI: BlockTable = {
    "content": ("output_blocks.3.1",),  # up_blocks.1.attentions.0
    "style": (
        "output_blocks.4.1",  # up_blocks.1.attentions.1
        "output_blocks.5.1",  # up_blocks.1.attentions.2
    ),
}
FULL: Mapping[str, BlockTable] = {
    "sdxl": _SDXL,
    "sdxl-like": _SDXL,
    "ssd-1b": _SDXL,
    "vega": _SDXL,
    "mini": _MINI,
    "koala-1b": _KOALA,
    "koala-700m": _KOALA,
}
PROVISIONAL = frozenset({"koala-1b", "koala-700m"})

# B-LoRA trains only these (yardenfren1996/B-LoRA blora_utils.py:3-6). The miniature's are those
# that were measured; the others have no table of their own and take SDXL's.
_B_LORA: BlockTable = {
    "content": ("output_blocks.0.1",),  # up_blocks.0.attentions.0
    "style": ("output_blocks.1.1",),  # up_blocks.0.attentions.1
}
B_LORA: Mapping[str, BlockTable] = {**dict.fromkeys(FULL, _B_LORA), "mini": _MINI}


def check_table(table: Mapping[str, tuple[str, ...]], groups: Mapping[str, int]) -> None:
    """Raises InvalidInput where a user's table names a branch or a group that the model lacks."""
    for branch, full in table.items():
        if branch not in BRANCHES:
            raise InvalidInput(
                f"The block table has a row for {branch!r}, which is no branch. "
                "Its rows are content and style."
            )
        check_groups(full, groups)


def check_groups(named: Iterable[str], groups: Mapping[str, int]) -> None:
    """Raises InvalidInput where settings name a group that the model lacks."""
    for group in named:
        if group not in groups:
            raise InvalidInput(
                f"The settings name the group {group}, which this model does not have. "
                f"Its attention groups are {', '.join(groups)}."
            )
