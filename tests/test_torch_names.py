"""The package uses no name of torch that the oldest supported one lacks (tools/torch_names.py)."""

from __future__ import annotations

from tools.torch_names import GUARDED, LIST, exists, names_in, sources

KNOWN = set(LIST.read_text("utf-8").split())


def test_all_names_in_use_are_in_torch_2_1() -> None:
    for path in sources():
        unknown = names_in(path.read_text("utf-8")) - GUARDED - KNOWN
        assert not unknown, f"{path} uses {unknown}: is it in torch 2.1? See tools/torch_names.py."


def test_the_list_is_true_of_this_torch() -> None:
    """Of the oldest, where CI has it; of newer ones, that they still have what we use."""
    assert all(map(exists, KNOWN))
    assert not exists("torch.utils._pytree.no_such_name")


def test_names_are_found_however_they_are_imported() -> None:
    source = """
import torch.nn.functional as F
import torch
from torch import nn as layers, Tensor
from torch.utils._pytree import tree_leaves
x = F.gelu(torch.ones(2).tolist()) + layers.functional.silu(1)
"""
    assert names_in(source) == {
        "torch.nn.functional",
        "torch.nn.functional.gelu",
        "torch.ones",
        "torch.nn",
        "torch.nn.functional.silu",
        "torch.Tensor",
        "torch.utils._pytree.tree_leaves",
    }
