"""The cards beside a pair: always there, with its previews, and the training image by consent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unziplora
from unziplora.training.events import StepDone

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 4, "name": "pair", "rank": 2, "lr": 1e-3, "resolution": 64,
            "preview_steps": 1}  # fmt: skip


def train(host: Any, image: Path, out: Path, stop_at: int = 0, **more: Any) -> None:
    run = unziplora.train(
        image, subject="cat", style="ink", host=host, settings={**SETTINGS, **more}, out=out,
        overwrite=True,
    )  # fmt: skip
    for event in run:
        if isinstance(event, StepDone) and event.step == stop_at:
            run.send("stop and save")


def on_card(out: Path) -> bytes:
    with Image.open(out / "pair_style.png") as image:
        return image.convert("RGB").tobytes()


def test_without_consent_nobody_sees_the_training_image(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    train(host, image_file, tmp_path, image_on_cards=True)
    assert on_card(tmp_path)
    train(host, image_file, tmp_path)  # over it
    assert (tmp_path / "pair_style.json").is_file()
    assert not (tmp_path / "pair_style.png").exists()


def test_a_run_that_was_stopped_early_shows_its_latest_previews(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    train(host, image_file, tmp_path, stop_at=3, preview_every=2)
    preview = Image.open(tmp_path / ".unziplora" / "pair" / "previews" / "000002_style.png")
    assert on_card(tmp_path) == preview.convert("RGB").tobytes()
