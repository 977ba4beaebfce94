"""Names of one layer in three programs, and the family's members distinguished."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unziplora.errors import InvalidInput
from unziplora.method.blocks import B_LORA, FULL, check_table
from unziplora.unet.architectures import architecture_of, family, recognise
from unziplora.unet.layer_names import (
    PROJECTIONS,
    attention_layers,
    group_of,
    kohya_name,
    reads_text,
    sgm_name,
)

# facts of SDXL (two res blocks a level) and KOALA (one), diffusers to sgm
SDXL_GROUPS = {
    "down_blocks.1.attentions.0": "input_blocks.4.1",
    "down_blocks.1.attentions.1": "input_blocks.5.1",
    "down_blocks.2.attentions.0": "input_blocks.7.1",
    "down_blocks.2.attentions.1": "input_blocks.8.1",
    "mid_block.attentions.0": "middle_block.1",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.attentions.2": "output_blocks.2.1",
    "up_blocks.1.attentions.0": "output_blocks.3.1",
    "up_blocks.1.attentions.1": "output_blocks.4.1",
    "up_blocks.1.attentions.2": "output_blocks.5.1",
}
KOALA_GROUPS = {
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "down_blocks.2.attentions.0": "input_blocks.5.1",
    "mid_block.attentions.0": "middle_block.1",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
}

groups = st.sampled_from([g for a in family().values() for g in a.groups])


def layers_of(depths: dict[str, int]) -> list[str]:
    return [
        f"{group}.transformer_blocks.{block}.{attention}.{projection}"
        for group, depth in depths.items()
        for block in range(depth)
        for attention in ("attn1", "attn2")
        for projection in PROJECTIONS
    ]


@pytest.mark.parametrize(("names", "res_blocks"), [(SDXL_GROUPS, 2), (KOALA_GROUPS, 1)])
def test_diffusers_names_become_sgm_names(names: dict[str, str], res_blocks: int) -> None:
    for diffusers, sgm in names.items():
        tail = ".transformer_blocks.3.attn2.to_out.0"
        assert sgm_name(diffusers + tail, res_blocks) == sgm + tail


@given(group=groups, block=st.integers(0, 9), projection=st.sampled_from(PROJECTIONS))
def test_sgm_names_stay_and_give_group_and_kohya_name(
    group: str, block: int, projection: str
) -> None:
    layer = f"{group}.transformer_blocks.{block}.attn2.{projection}"
    assert sgm_name(layer) == layer
    assert group_of(layer) == group
    assert reads_text(layer) == (projection in ("to_k", "to_v"))
    assert not reads_text(layer.replace("attn2", "attn1"))
    assert kohya_name(layer) == "lora_unet_" + layer.replace(".", "_")


@given(name=st.text(max_size=60))
def test_other_names_are_left_alone_or_refused(name: str) -> None:
    if not name.startswith(("down_blocks", "up_blocks", "mid_block")):
        assert sgm_name(name) == name
    if not name.startswith(("input_blocks", "output_blocks", "middle_block")):
        with pytest.raises(ValueError, match="not the sgm name"):
            group_of(name)


@pytest.mark.parametrize("name", list(family()))
def test_each_member_is_recognised_by_its_depths(name: str) -> None:
    layers = layers_of(family()[name].groups)
    assert architecture_of(layers, name) == family()[name]
    if name == "sdxl":
        assert len(layers) == 560


def test_sdxl_groups_with_other_depths_are_sdxl_like() -> None:
    found = architecture_of(layers_of(dict.fromkeys(family()["sdxl"].groups, 3)))
    assert found.name == "sdxl-like"
    assert list(found.groups) == list(family()["sdxl"].groups)


def test_sd15_is_refused_with_what_to_choose() -> None:
    sd15 = dict.fromkeys(["input_blocks.1.1", "input_blocks.2.1", "middle_block.1"], 1)
    with pytest.raises(InvalidInput, match=r"not of the SDXL family.*Choose an SDXL checkpoint"):
        architecture_of(layers_of(sd15))


def test_a_diffusers_unet_is_recognised(host: Any) -> None:
    assert recognise(host.unet).name == "sdxl-like"
    names = list(attention_layers(host.unet))
    assert len(names) == len(set(names)) == 8 * sum(recognise(host.unet).groups.values())


def test_every_architecture_has_a_block_table_of_its_own_groups() -> None:
    members = family()
    for name, table in FULL.items():
        architecture = members.get(name, members["sdxl"])
        check_table(table, architecture.groups)
        check_table(B_LORA[name], architecture.groups)
        assert not set(table["content"]) & set(table["style"])


def test_a_block_table_with_an_unknown_group_or_branch_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"output_blocks\.9\.1"):
        check_table({"content": ("output_blocks.9.1",)}, family()["sdxl"].groups)
    with pytest.raises(InvalidInput, match="no branch"):
        check_table({"subject": ()}, family()["sdxl"].groups)
