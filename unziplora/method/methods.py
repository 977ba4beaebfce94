"""UnZipLoRA, its ablations and two baselines: settings of one loop, not code paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unziplora.method.blocks import B_LORA, FULL, BlockTable
from unziplora.method.forward_mode import Pass
from unziplora.method.prompts import BranchName

# Makes embeddings instead of LoRAs (inversion/), so it is no setting of this loop.
INSPIRATION_TREE = "inspiration-tree"
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
    some groups of the limit. only: where a branch exists at all (None: everywhere).
    only_by_architecture: its groups on architectures where they are others."""

    name: str
    passes: tuple[Pass, ...]
    columns: bool = False
    blocks: bool = False
    only: BlockTable | None = None
    only_by_architecture: Mapping[str, BlockTable] = field(default_factory=dict)
    steps: int = 600  # paper, section 4.1

    def on(self, architecture: str) -> Method:
        """The same with the groups that it is confined to on this architecture."""
        return replace(self, only=self.only_by_architecture.get(architecture, self.only))

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
        Method("b-lora", _APART, only=B_LORA["sdxl"], only_by_architecture=B_LORA, steps=1000),
    )
}


def table_for(architecture: str) -> BlockTable:
    """The block table of an architecture's name (unet/layer_names.py)."""
    return FULL[architecture]
