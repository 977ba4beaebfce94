"""A method is data: what it says of itself is what is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unziplora.method.blocks import B_LORA, FULL
from unziplora.method.methods import METHODS, Method

OWN = {"content": ("middle_block.1",), "style": ("input_blocks.4.1",)}


@pytest.mark.parametrize("architecture", FULL)
def test_a_confined_method_keeps_its_own_groups(architecture: str) -> None:
    method = Method("own", METHODS["b-lora"].passes, only=OWN).on(architecture)
    assert method.only == OWN
    assert method.trains("content", "middle_block.1")
    assert not method.trains("style", "middle_block.1")


@pytest.mark.parametrize("architecture", FULL)
def test_b_loras_groups_are_those_of_the_architecture(architecture: str) -> None:
    assert METHODS["b-lora"].on(architecture).only == B_LORA[architecture]


def test_a_method_may_have_other_groups_on_one_architecture() -> None:
    method = replace(METHODS["b-lora"], only=OWN, only_by_architecture={"mini": B_LORA["mini"]})
    assert method.on("sdxl").only == OWN
    assert method.on("mini").only == B_LORA["mini"]


@pytest.mark.parametrize("name", ["unziplora", "m1", "m2", "dreambooth"])
def test_other_methods_train_everywhere(name: str) -> None:
    assert METHODS[name].on("mini").only is None
    assert METHODS[name].trains("style", "output_blocks.0.1")
