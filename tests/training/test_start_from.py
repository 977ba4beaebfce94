"""A run that begins with a finished pair: it does at first what the pair did, and learns on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unziplora
from unziplora.errors import InvalidInput
from unziplora.lora.read import read_lora
from unziplora.training.events import StepDone
from unziplora.training.run import Run

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 6, "rank": 2, "lr": 1e-3, "resolution": 64, "subject": "cat", "style": "ink"}


def begin(host: Any, image: Path, out: Path, name: str, **more: Any) -> Run:
    start_from = more.pop("start_from", None)
    values = {**SETTINGS, **more, "name": name}
    return unziplora.train(
        image, host=host, settings=values, out=out, start_from=start_from,
        subject=str(values["subject"]), style=str(values["style"]),
    )  # fmt: skip


def layers(out: Path, name: str, role: str) -> dict[str, torch.Tensor]:
    """What a file adds to each weight."""
    read = read_lora(out / f"{name}_{role}.safetensors").layers
    return {layer: lora.scale * lora.up.float() @ lora.down.float() for layer, lora in read.items()}


def closed(out: Path, name: str, role: str) -> dict[str, torch.Tensor]:
    return {layer: ~change.ne(0).any(1) for layer, change in layers(out, name, role).items()}


def test_it_begins_with_what_the_pair_does_and_keeps_its_columns(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(host, image_file, tmp_path, "first"))
    # a rate so small that nothing moves: what is written is what was read
    still = {"lr": 1e-12, "merger_lr": 0.0, "steps": 2}
    list(begin(host, image_file, tmp_path, "still", start_from="first", **still))
    events = list(begin(host, image_file, tmp_path, "more", start_from="first", steps=6))
    for role in ("content", "style"):
        first, same = (layers(tmp_path, name, role) for name in ("first", "still"))
        assert first.keys() == same.keys()
        for layer, change in first.items():
            torch.testing.assert_close(same[layer], change, rtol=0.01, atol=1e-7)
        more = layers(tmp_path, "more", role)
        assert any(not torch.equal(more[layer], first[layer]) for layer in more)
        before, after = closed(tmp_path, "first", role), closed(tmp_path, "more", role)
        assert any(columns.any() for columns in before.values())
        # a layer of which nothing is open is left out of the file
        assert all(
            layer not in after or after[layer][columns].all() for layer, columns in before.items()
        )
        assert after.keys() <= before.keys()
    shares = {tuple(e.open_columns.values()) for e in events if isinstance(e, StepDone)}
    assert len(shares) == 1, "no columns were chosen again"


def test_the_header_says_with_which_pair_it_began(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    list(begin(host, image_file, tmp_path, "first"))
    list(begin(host, image_file, tmp_path, "more", start_from="first", steps=3))
    file = read_lora(tmp_path / "more_style.safetensors")
    said = json.loads(file.metadata["ss_network_args"])["started_from"]
    first = read_lora(tmp_path / "first_style.safetensors").info
    assert said == {"name": "first", "pair": first.pair, "steps": 6}
    assert file.info.pair != first.pair
    assert "started_from" not in read_lora(tmp_path / "first_style.safetensors").metadata


def test_stopped_and_resumed_it_ends_with_the_same_files(
    documented: dict[str, Any], image_file: Path, tmp_path: Path
) -> None:
    def fresh() -> Any:
        return documented["MyHost"](documented["small_unet"]())

    list(begin(fresh(), image_file, tmp_path, "first"))
    list(begin(fresh(), image_file, tmp_path, "whole", start_from="first", steps=6))
    run = begin(fresh(), image_file, tmp_path, "parted", start_from="first", steps=6)
    for event in run:
        if isinstance(event, StepDone) and event.step == 3:
            run.send("stop")
    list(unziplora.resume(tmp_path / "parted", host=fresh()))
    for role in ("content", "style"):
        whole, parted = (layers(tmp_path, name, role) for name in ("whole", "parted"))
        assert all(torch.equal(whole[layer], parted[layer]) for layer in whole)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"rank": 4}, "has the rank 2, and the run 4"),
        ({"alpha": 1.0}, "has the alpha 2.0, and the run 1.0"),
        ({"method": "b-lora"}, "has the method unziplora, and the run b-lora"),
    ],
)
def test_what_does_not_fit_the_pair_is_refused_before_anything_is_written(
    host: Any, image_file: Path, tmp_path: Path, chosen: dict[str, Any], said: str
) -> None:
    list(begin(host, image_file, tmp_path, "first"))
    with pytest.raises(InvalidInput, match=said):
        begin(host, image_file, tmp_path, "other", start_from="first", **chosen)
    with pytest.raises(InvalidInput, match="no pair named nothing"):
        begin(host, image_file, tmp_path, "other", start_from="nothing")
    assert not list(tmp_path.glob("other*"))
