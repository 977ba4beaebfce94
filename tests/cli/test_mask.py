"""`unziplora train --mask`: what the mask hides becomes ground, or trains style alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unziplora import mini
from unziplora.cli.commands import main


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A grey image, and a mask that hides its right half."""
    Image.new("RGB", (96, 96), (90, 120, 60)).save(tmp_path / "grey.png")
    mask = Image.new("L", (96, 96), 0)
    mask.paste(255, (0, 0, 48, 96))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "grey.png", tmp_path / "mask.png"


def arguments(files: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    image, mask = files
    words = ["--subject", "cat", "--style", "ink", "--name", "pair"]
    small = ["--steps", "2", "--rank", "2", "--resolution", "64"]
    return ["train", str(image), "--mask", str(mask), *words, *small, "--out", str(out), *more]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["off", "subject"])
def test_a_mask_hides_or_trains_style_alone(
    files: tuple[Path, Path], tmp_path: Path, how: str
) -> None:
    settings, out = tmp_path / "settings.json", tmp_path / "out"
    settings.write_text(json.dumps({"mask_content": how}), "utf-8")
    given = arguments(files, out, "--model", str(mini.MODEL), "--settings", str(settings))
    assert main(given) == 0
    (kept,) = (out / ".unziplora" / "pair").glob("image.*")
    pixels = np.asarray(Image.open(kept).convert("RGB"))
    assert (pixels[:, :48] == (90, 120, 60)).all()
    assert (pixels[:, 48:] == (255 if how == "off" else (90, 120, 60))).all()


def test_a_mask_of_another_shape_is_refused_before_the_model_is_read(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (192, 96), 255).save(files[1])
    assert main(arguments(files, tmp_path, "--model", str(tmp_path / "none.safetensors"))) == 2
    assert "The mask has 192 x 96 pixels, the image 96 x 96." in capsys.readouterr().err


def test_a_resumed_run_takes_no_mask(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["train", "--resume", str(tmp_path / "pair"), "--mask", str(files[1])]
    assert main([*resume, "--model", str(mini.MODEL)]) == 2
    assert "keeps the image" in capsys.readouterr().err
