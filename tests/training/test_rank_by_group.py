"""Some attention groups have ranks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import unziplora
from tests.training.runs import begin
from unziplora.errors import InvalidInput
from unziplora.training.memory_forecast import forecast
from unziplora.training.settings import Settings

RANKS = {"output_blocks.0.1": 4, "middle_block.1": 1}


@pytest.mark.parametrize("memory", ["full", "low"])
def test_files_have_each_groups_rank_and_the_same_scale(
    host: Any, image_file: Path, tmp_path: Path, memory: str
) -> None:
    list(begin(image_file, host, tmp_path, rank_by_group=RANKS, memory=memory, method="m1"))
    tensors = load_file(tmp_path / "pair_style.safetensors")
    found = set()
    for name, down in tensors.items():
        if not name.endswith(".lora_down.weight"):
            continue
        own = next((r for g, r in RANKS.items() if g.replace(".", "_") in name), 2)
        module = name.removesuffix(".lora_down.weight")
        assert down.shape[0] == tensors[f"{module}.lora_up.weight"].shape[1] == own
        assert tensors[f"{module}.alpha"].item() / own == 1
        found.add(own)
    assert found == {1, 2, 4}


def test_the_forecast_counts_them(host: Any) -> None:
    settings = Settings("cat", "ink", rank=4, resolution=64).resolve()
    more = Settings("cat", "ink", rank=4, resolution=64, rank_by_group={"middle_block.1": 16})
    plain, larger = (
        forecast(host.unet, host.device, chosen).needs["full"]
        for chosen in (settings, more.resolve())
    )
    assert larger > plain


def test_a_group_that_the_model_lacks_is_refused(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"name the group output_blocks\.9\.1"):
        begin(image_file, host, tmp_path, rank_by_group={"output_blocks.9.1": 4})


def test_a_run_that_begins_with_a_pair_has_its_ranks(
    make_host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(image_file, make_host(), tmp_path, name="first"))
    with pytest.raises(InvalidInput, match="has that pair's ranks"):
        unziplora.train(
            image_file,
            subject="cat",
            style="ink",
            host=make_host(),
            settings={"name": "second", "rank_by_group": RANKS},
            out=tmp_path,
            start_from="first",
        )
