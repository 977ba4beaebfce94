"""UnZipLoRA, its ablations and two baselines: settings of one loop, not code paths."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unziplora.method.blocks import B_LORA, FULL, BlockTable
from unziplora.method.prompts import BranchName, Pass

# Both branches in one pass, each reading its own prompt (eq. 3).
_TOGETHER = (Pass("combined", {"content": "content", "style": "style"}),)
# Two independent LoRAs, each with one prompt for everything: a pass of its own per step.
_APART = (
    Pass("content", {"content": "content"}),
    Pass("combined", {"style": "combined"}),
)


@dataclass(frozen=True)
class Method:
    """passes: what a step runs. columns: masks, mergers and eq. 5. blocks: the block table frees
    some groups of the limit. only: where a branch exists at all (None: everywhere)."""

    name: str
    passes: tuple[Pass, ...]
    columns: bool = False
    blocks: bool = False
    only: BlockTable | None = None
    steps: int = 600  # paper, section 4.1

    def on(self, architecture: str) -> Method:
        """The same with the groups of this architecture, where it is confined to some."""
        return self if self.only is None else replace(self, only=B_LORA[architecture])

    def trains(self, branch: BranchName, group: str) -> bool:
        """Whether the branch exists in a group."""
        return self.only is None or group in self.only[branch]

    def limits(self, branch: BranchName, group: str, table: BlockTable) -> bool:
        """Whether the branch's columns are chosen by importance in a group."""
        return self.columns and not (self.blocks and group in table[branch])


METHODS = {
    method.name: method
    for method in (
        Method("unziplora", _TOGETHER, columns=True, blocks=True),  # the paper's M3
        Method("m1", _TOGETHER),
        Method("m2", _TOGETHER, columns=True),
        Method("dreambooth", _APART),
        Method("b-lora", _APART, only=B_LORA["sdxl"], steps=1000),
    )
}


def table_for(architecture: str) -> BlockTable:
    """The block table of an architecture's name (unet/layer_names.py)."""
    return FULL[architecture]
