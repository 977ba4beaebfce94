"""The gates: a target without headroom is left out with its reason, a weak model is called weak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.quality.effect import relative_change
from benchmarks.quality.gates import (
    Headroom,
    by_faults,
    capacity,
    capacity_text,
    headroom,
    headroom_text,
    passing,
)
from benchmarks.quality.targets import CHOOSING, FINAL
from mini_world.emoji import sets
from mini_world.emoji.probes import judge
from mini_world.emoji.world import held_out_individual, portrait
from mini_world.encoder import EncoderJudge
from unziplora.lora.write import LoraLayer, save_lora
from unziplora.scores import efficientnet
from unziplora.unet.attach import layer_shapes
from unziplora.unet.layer_names import attention_layers

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")
GOOD = Headroom(CHOOSING[0].name, True, 0.9, 0.9, 0.7, 0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keeps_colours": False}, "no colours"),
        ({"style_through_vae": 0.8}, "through the VAE"),
        ({"base_subject": 0.85}, "own subject"),
        ({"base_style": 0.6}, "base style"),
    ],
)
def test_a_target_without_headroom_is_left_out_with_its_reason(
    change: dict[str, Any], reason: str
) -> None:
    assert GOOD.faults() == []
    poor = replace(GOOD, **change)
    assert [reason in fault for fault in poor.faults()] == [True]
    assert reason in headroom_text([poor])
    assert passing([poor], CHOOSING) == []
    assert passing([GOOD], CHOOSING) == [CHOOSING[0]]


def test_those_that_pass_come_style_by_style_in_turn() -> None:
    rooms = [replace(GOOD, target=target.name) for target in FINAL]
    found = passing(rooms, FINAL)
    assert sorted(t.name for t in found) == sorted(t.name for t in FINAL)
    styles = [target.style for target in found]
    assert len(set(styles[:5])) == len(set(styles)) == 5
    assert len(set(styles[5:10])) == 5
    assert [t for t in found if t.style == styles[0]] == [t for t in FINAL if t.style == styles[0]]


def test_without_gates_the_targets_with_the_fewest_faults_come_first() -> None:
    one, two = (replace(GOOD, target=t.name) for t in CHOOSING[:2])
    poorer = replace(one, keeps_colours=False, base_style=0.9)
    poor = replace(two, base_style=0.9)
    assert by_faults([poorer, poor], CHOOSING[:2]) == [CHOOSING[1], CHOOSING[0]]


class WorldBench:
    """A base that draws other individuals in no style, and a VAE that blurs or does not."""

    def __init__(self, blur: int) -> None:
        self.sampler, self.blur = self, blur

    def base_samples(self, condition: str, target: Any, style_target: Any) -> np.ndarray:
        kinds = [target.kind] if condition == "content" else target.others
        return np.stack([
            portrait(held_out_individual(kind, 4 + n), "", n, n).draw()
            for n, kind in enumerate(kinds * (8 // len(kinds)))
        ])  # fmt: skip

    def through_vae(self, images: np.ndarray) -> np.ndarray:
        if not self.blur:
            return images
        n, side = len(images), 128 // self.blur
        small = images.reshape(n, side, self.blur, side, self.blur, 3).mean((2, 4))
        return small.repeat(self.blur, 1).repeat(self.blur, 2).astype(np.uint8)


@pytest.mark.slow
@needs_sets
def test_headroom_sees_a_vae_that_takes_the_style_away() -> None:
    target, networks = CHOOSING[1], judge()
    sharp = headroom(WorldBench(0), networks, target)  # type: ignore[arg-type]
    blurred = headroom(WorldBench(16), networks, target)  # type: ignore[arg-type]
    assert sharp.style_through_vae > 0.85
    assert blurred.style_through_vae < sharp.style_through_vae - 0.2
    assert sharp.own_subject > sharp.base_subject
    assert sharp.base_style < 0.5


def test_a_model_on_which_dreambooth_does_not_reach_the_image_is_called_weak() -> None:
    copy = {"content.subject": 0.9, "style.style": 0.9}
    assert all(capacity(copy, copy).values())
    assert "Passed" in capacity_text(capacity(copy, copy))
    weak = capacity({"content.subject": 0.9, "style.style": 0.5}, copy)
    assert weak == {"content.subject": True, "style.style": False}
    assert "FAILED" in capacity_text(weak)
    assert "style.style" in capacity_text(weak)


def test_the_size_of_a_change_is_that_of_the_dense_weights(host: Any, tmp_path: Path) -> None:
    layers, shapes = attention_layers(host.unet), layer_shapes(host.unet)
    torch.manual_seed(0)
    loras = {
        name: LoraLayer(torch.randn(4, i), torch.randn(o, 4), alpha=2.0)
        for name, (o, i) in shapes.items()
    }
    path = tmp_path / "lora.safetensors"
    save_lora(path, loras, {}, shapes=shapes, dtype=torch.float32)
    changed = sum((0.5 * lora.up @ lora.down).pow(2).sum() for lora in loras.values())
    whole = sum(layers[name].weight.detach().pow(2).sum() for name in loras)
    assert relative_change(path, host.unet) == pytest.approx(float((changed / whole) ** 0.5), 1e-4)


@pytest.mark.slow
@needs_sets
@pytest.mark.skipif(bool(efficientnet.missing()), reason=efficientnet.missing() or "installed")
def test_the_second_referee_tells_things_and_styles_apart() -> None:
    referee = EncoderJudge()
    things = np.stack([portrait(held_out_individual(k, n), "", 1, n).draw()
                       for n in (1, 2) for k in ("cat", "car", "house")])  # fmt: skip
    content = referee.content(things)
    assert (content[:3] @ content[3:].T).argmax(1).tolist() == [0, 1, 2]
    styles = ("mosaic tiles", "neon sign", "knitted textile")
    styled = np.stack([portrait(held_out_individual(k, 1), style, 1, 1).draw()
                       for k in ("cat", "house") for style in styles])  # fmt: skip
    style = referee.style(styled)
    assert (style[:3] @ style[3:].T).argmax(1).tolist() == [0, 1, 2]
    assert torch.allclose(style.norm(dim=-1), torch.ones(6), atol=1e-5)
    # what was looked at before does not matter
    assert torch.equal(EncoderJudge().style(styled), style)
    assert torch.equal(referee.content(things), content)
