"""The subject's mask: cut as the image is, and content learns from what it shows only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.runs import begin
from tests.training.test_loss_weights import gradients
from tests.training.test_memory_plans import losses, under
from tests.training.test_trainer import SETTINGS, snapshot
from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage, fit, open_image, with_mask
from unziplora.training.subject_mask import SubjectMask, by_tokens, mask_of_latents
from unziplora.unet.layer_names import reads_text

LEFT = torch.cat([torch.ones(1, 1, 8, 4), torch.zeros(1, 1, 8, 4)], dim=3)


@pytest.mark.parametrize("crop", ["aspect", "centre"])
def test_the_mask_is_cut_as_the_image_is(crop: Any) -> None:
    image = Image.new("RGB", (300, 170), "black")
    image.paste((255, 255, 255), (20, 30, 120, 90))
    mask = image.convert("L")
    fitted = fit(SourceImage(image, mask=mask), 128, crop)
    assert fitted.mask is not None
    assert fitted.mask.shape == (1, 1, *fitted.pixels.shape[2:])
    shown = (fitted.pixels.mean(1, keepdim=True) + 1) / 2
    assert ((fitted.mask - shown).abs() > 0.2).float().mean() < 0.01  # two filters, on edges
    assert fit(SourceImage(image), 128, crop).mask is None


def test_each_layers_positions_have_the_mean_of_their_patch() -> None:
    masks = by_tokens(LEFT, 0.0)
    assert {tokens: mask.shape for tokens, mask in masks.items()} == {
        64: (1, 64, 1), 16: (1, 16, 1), 4: (1, 4, 1), 1: (1, 1, 1)
    }  # fmt: skip
    assert masks[16].view(4, 4).tolist() == [[1, 1, 0, 0]] * 4
    assert masks[1].item() == 0.5
    assert 3 * 5 in by_tokens(torch.ones(1, 1, 5, 9), 0.0)  # as convolutions of stride 2 leave it


def test_what_a_mask_hides_keeps_the_weight_of_the_rest() -> None:
    assert by_tokens(LEFT, 0.25)[16].view(4, 4).tolist() == [[1, 1, 0.25, 0.25]] * 4
    assert by_tokens(LEFT, 0.5)[1].item() == 0.75
    gates = SubjectMask(LEFT, "apart", 0.25).on({}, {"content": None, "style": None}, 0)
    both = gates["content"].masks[64] + gates["style"].masks[64]
    assert torch.equal(both, torch.full_like(both, 1.25))


def content_and_style(
    documented: dict[str, Any], mask: Tensor | None, how: Any, rest: float = 0.0
) -> Any:
    """Gradients of one step of a run that has begun, those of content and of style."""
    begun = under("full", documented)
    losses(begun, 2)
    trainer = under("full", documented, replace(SETTINGS, mask_content=how, mask_rest=rest), mask)
    state = {**snapshot(begun), **({} if mask is None else {"mask": mask})}
    trainer.restore(state, begun.numbers())
    found = gradients(trainer)
    weights = {name: grad for name, grad in found.items() if not name.endswith(":merger")}
    return [{n: g for n, g in weights.items() if f":{b}:" in n} for b in ("content", "style")]


def test_content_learns_from_the_mask_and_style_from_all(documented: dict[str, Any]) -> None:
    whole, style = content_and_style(documented, None, "off")
    inside, style_inside = content_and_style(documented, LEFT, "subject")
    outside, _ = content_and_style(documented, 1 - LEFT, "subject")
    differ = 0
    for name, expected in whole.items():
        text = reads_text(name.partition(":")[0])
        together = inside[name] if text else inside[name] + outside[name]
        assert (together - expected).norm() <= 1e-3 * expected.norm(), name
        differ += bool((inside[name] - expected).norm() > 0.05 * expected.norm())
    assert differ > len(whole) / 3
    for name, expected in style.items():
        assert (style_inside[name] - expected).norm() <= 1e-3 * expected.norm(), name


def test_apart_style_learns_from_the_rest(documented: dict[str, Any]) -> None:
    _, whole = content_and_style(documented, None, "off")
    _, rest = content_and_style(documented, LEFT, "apart")
    _, other_rest = content_and_style(documented, 1 - LEFT, "apart")
    for name, expected in whole.items():
        text = reads_text(name.partition(":")[0])
        together = rest[name] if text else rest[name] + other_rest[name]
        assert (together - expected).norm() <= 1e-3 * expected.norm(), name
    assert any((rest[n] - whole[n]).norm() > 0.05 * whole[n].norm() for n in whole)


def test_the_rest_has_its_share_of_contents_gradient(documented: dict[str, Any]) -> None:
    whole, style = content_and_style(documented, None, "off")
    soft, style_soft = content_and_style(documented, LEFT, "subject", rest=0.25)
    inside, _ = content_and_style(documented, LEFT, "subject")
    for name, of_all in whole.items():
        expected = 0.25 * of_all + 0.75 * inside[name]
        assert (soft[name] - expected).norm() <= 1e-3 * of_all.norm(), name
    for name, of_all in style.items():
        assert (style_soft[name] - of_all).norm() <= 1e-3 * of_all.norm(), name


def test_a_mirrored_image_has_its_mask_mirrored(make_host: Any, tmp_path: Path) -> None:
    run = begin(masked_image(tmp_path), make_host(), tmp_path, mask_content="subject", flip=True)
    for _ in run:
        run.send("stop")
    tensors, _ = run.folder.read_state(run.info.pair)
    assert tensors["mask"].shape == (2, 1, 8, 8)
    assert torch.equal(tensors["mask"][1], tensors["mask"][0].flip(-1))
    assert not torch.equal(tensors["mask"][1], tensors["mask"][0])


@pytest.mark.parametrize("how", ["off", "subject"])
def test_style_learns_from_what_a_mask_image_hides(
    make_host: Any, tmp_path: Path, how: str
) -> None:
    grey, mask = tmp_path / "grey.png", tmp_path / "mask.png"
    Image.new("RGB", (96, 96), (90, 120, 60)).save(grey)
    Image.linear_gradient("L").resize((96, 96)).point(lambda level: 255 * (level > 90)).save(mask)
    image = open_image(with_mask(grey, mask))
    run = begin(image, make_host(), tmp_path, mask_content=how)
    for _ in run:
        run.send("stop")
    kept = np.asarray(Image.open(run.folder.image).convert("RGB"))
    hidden = np.asarray(Image.open(mask)) == 0
    assert (kept[hidden] == (255 if how == "off" else (90, 120, 60))).all()
    again = open_image(run.folder.training_image())  # as "Start again" reads it
    assert again.whole is not None
    assert np.array_equal(np.asarray(again.whole.image), kept)


def test_a_run_that_is_older_than_the_rests_weight_goes_on_without_it(
    make_host: Any, tmp_path: Path
) -> None:
    run = begin(masked_image(tmp_path), make_host(), tmp_path, mask_content="subject")
    for _ in run:
        run.send("stop")
    assert run.folder.read_info().settings.mask_rest == 0.2
    written = run.folder.path / "settings.json"
    data = json.loads(written.read_text("utf-8"))
    del data["settings"]["mask_rest"]
    written.write_text(json.dumps(data), "utf-8")
    assert run.folder.read_info().settings.mask_rest == 0.0


def masked_image(folder: Path) -> Path:
    pixels = np.full((96, 96, 4), 200, dtype=np.uint8)
    pixels[:, 40:, 3] = 0
    Image.fromarray(pixels).save(folder / "masked.png")
    return folder / "masked.png"


def test_without_a_mask_the_run_is_refused_before_it_begins(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="needs an image with a mask"):
        begin(image_file, host, tmp_path, mask_content="subject")
    assert not (tmp_path / ".unziplora").exists()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_of_all_or_nothing_is_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="all or nothing"):
        mask_of_latents(torch.full((1, 1, 64, 64), value), torch.zeros(1, 4, 8, 8))
