"""A B-LoRA of another program as content and style: one file holds both, in two groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lora.layouts import Made, deltas, linears, pairs, sgm, suffixed
from unziplora.app.sheet import sheet_prompts
from unziplora.cli.commands import main
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.lora.apply import check_fits, targets_in
from unziplora.lora.merge import merge
from unziplora.lora.pair import find_pair
from unziplora.lora.projection import input_directions
from unziplora.lora.read import read_lora
from unziplora.lora.split import split

CONTENT, STYLE = "up_blocks.0.attentions.0", "up_blocks.0.attentions.1"
TRIGGERS = {"content": "a v45 dog", "style": "v45 ink style"}


def b_lora(host: Any, path: Path, *groups: str) -> Made:
    """As yardenfren1996/B-LoRA writes them, with diffusers' names and no alpha."""
    inside = {n: m for n, m in linears(host.unet).items() if n.startswith(groups)}
    of = pairs(inside)
    made = Made(suffixed(of, "unet.{}.lora", "down.weight", "up.weight"), deltas(of, 1.0))
    made.write(path)
    return made


def test_either_file_has_its_group_as_it_was_and_both_are_a_pair(host: Any, tmp_path: Path) -> None:
    made = b_lora(host, tmp_path / "dog.safetensors", CONTENT, STYLE)
    done = split(tmp_path / "dog.safetensors", tmp_path, "dog", TRIGGERS)
    pair = find_pair(tmp_path, "dog")
    assert pair is not None
    assert (pair.content_trigger, pair.style_trigger, pair.method) == (
        "a v45 dog", "v45 ink style", "b-lora",
    )  # fmt: skip
    assert (
        sheet_prompts(pair.content, pair.style).by_row()["both"][0].startswith("a v45 dog in v45")
    )
    assert done.left_out == 0
    for group, file in ((CONTENT, pair.content), (STYLE, pair.style)):
        own = {name: delta for name, delta in made.deltas.items() if name.startswith(group)}
        got = {t.module: adapter for t, adapter in read_lora(file).adapters.items()}
        assert got.keys() == {sgm(name) for name in own}
        for name, delta in own.items():
            change = got[sgm(name)].delta(torch.zeros(delta.shape, dtype=torch.float64))
            assert (change - delta).norm() < 2e-3 * delta.norm()  # written in fp16
        check_fits(read_lora(file), targets_in("unet", host.unet))


def test_a_part_keeps_no_scales_that_diffusers_refuses_beside_alphas(
    host: Any, tmp_path: Path
) -> None:
    b_lora(host, tmp_path / "dog.safetensors", CONTENT, STYLE)
    tensors = load_file(tmp_path / "dog.safetensors")
    scales = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 2})}
    save_file(tensors, tmp_path / "dog.safetensors", {**scales, "format": "pt", "author": "Zoe"})
    split(tmp_path / "dog.safetensors", tmp_path, "dog", TRIGGERS)
    for role in ("content", "style"):
        header = read_lora(tmp_path / f"dog_{role}.safetensors").metadata
        assert header["author"] == "Zoe"
        assert not {"lora_adapter_metadata", "format"} & header.keys()


def test_other_kinds_of_layers_in_its_groups_are_not_lost(host: Any, tmp_path: Path) -> None:
    path = tmp_path / "dog.safetensors"
    b_lora(host, path, CONTENT, STYLE)
    tensors = load_file(path)
    key = next(key for key in tensors if STYLE in key and key.endswith("to_out.0.lora.up.weight"))
    bias = torch.ones(len(tensors[key]))
    save_file({**tensors, key.replace("lora.up.weight", "diff_b"): bias}, path)
    with pytest.raises(InvalidInput, match="1 LoRA with bias modules, which cannot be split"):
        split(path, tmp_path, "dog", TRIGGERS)
    assert [one.name for one in tmp_path.iterdir()] == ["dog.safetensors"]


def test_a_part_that_cannot_be_written_leaves_no_other_behind(host: Any, tmp_path: Path) -> None:
    b_lora(host, tmp_path / "dog.safetensors", CONTENT, STYLE)
    broken = {
        key: torch.full_like(tensor, float("nan")) if STYLE in key and "up" in key else tensor
        for key, tensor in load_file(tmp_path / "dog.safetensors").items()
    }
    save_file(broken, tmp_path / "dog.safetensors")
    with pytest.raises(UnZipLoRAError, match="infinite or NaN"):
        split(tmp_path / "dog.safetensors", tmp_path, "dog", TRIGGERS)
    assert [path.name for path in tmp_path.iterdir()] == ["dog.safetensors"]


def test_a_lora_of_all_attention_loses_its_other_groups_and_it_is_said(
    host: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b_lora(host, tmp_path / "all.safetensors", "")
    arguments = ["split", str(tmp_path / "all.safetensors"), "--out", str(tmp_path)]
    assert main([*arguments, "--content-trigger", "a dog"]) == 2
    assert "--style-trigger" in capsys.readouterr().err
    words = ["--content-trigger", "a dog", "--style-trigger", "ink style", "--name", "dog"]
    assert main([*arguments, *words]) == 0
    out = capsys.readouterr().out
    assert "dog_content.safetensors (8 layers)" in out
    assert "belong to neither, and are left out" in out
    assert main([*arguments, *words]) == 2
    assert "dog_content.safetensors exists already" in capsys.readouterr().err


def test_a_file_without_one_of_the_two_is_refused(host: Any, tmp_path: Path) -> None:
    b_lora(host, tmp_path / "half.safetensors", CONTENT)
    with pytest.raises(InvalidInput, match=r"no LoRA layers in output_blocks\.1\.1"):
        split(tmp_path / "half.safetensors", tmp_path, "half", TRIGGERS)
    assert not list(tmp_path.glob("half_*"))


@pytest.mark.parametrize("how", ["add", "np"])
def test_the_content_of_one_and_the_style_of_another_are_merged(
    host: Any, tmp_path: Path, how: str
) -> None:
    for name in ("dog", "sea"):
        b_lora(host, tmp_path / f"{name}.safetensors", CONTENT, STYLE)
        split(tmp_path / f"{name}.safetensors", tmp_path, name, TRIGGERS)
    parts = [(tmp_path / "dog_content.safetensors", 1.0), (tmp_path / "sea_style.safetensors", 0.5)]
    made = read_lora(merge(tmp_path / "both.safetensors", parts, how=how).path)
    # the two groups are apart, so there is nothing that a projection could take away
    for part, weight in parts:
        for target, adapter in read_lora(part).adapters.items():
            zero = torch.zeros(adapter.up.shape[0], adapter.down.shape[1])
            assert torch.allclose(
                made.adapters[target].delta(zero), weight * adapter.delta(zero), atol=1e-3
            )


def test_whole_b_loras_are_merged_too_and_np_gives_way_where_they_meet(
    host: Any, tmp_path: Path
) -> None:
    files = [tmp_path / "dog.safetensors", tmp_path / "sea.safetensors"]
    for file in files:
        b_lora(host, file, CONTENT, STYLE)
    made = read_lora(merge(tmp_path / "np.safetensors", [(f, 1.0) for f in files], how="np").path)
    style = read_lora(files[1]).adapters
    for target, adapter in made.adapters.items():
        directions = input_directions(style[target])
        zero = torch.zeros(adapter.up.shape[0], adapter.down.shape[1])
        # of two equal files the first does half along what the second reads, and the second all
        assert torch.allclose(
            adapter.delta(zero) @ directions,
            1.5 * style[target].delta(zero) @ directions,
            atol=1e-3,
        )


def test_what_is_no_b_lora_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "no.safetensors")
    with pytest.raises(InvalidInput, match="not a LoRA"):
        split(tmp_path / "no.safetensors", tmp_path, "no", TRIGGERS)
