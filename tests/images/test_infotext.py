"""What an image says of how it was made, as WebUIs read it; and what an interrogator says."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from unziplora.errors import UnZipLoRAError
from unziplora.hosts.webui.interrogator import medium_in
from unziplora.images.infotext import KEY, infotext, save_png, with_loras

WORDS = {"Steps": 20, "Sampler": "Euler", "Seed": 5}


@pytest.mark.parametrize("negative", ["", "blurry"])
def test_loras_are_called_at_the_end_of_the_prompt(negative: str) -> None:
    plain = infotext("a sks cat", negative, WORDS)
    called = with_loras(plain, [("x_content", 1.0), ("x_style", 0.5)])
    prompt, *rest = called.split("\n")
    assert prompt == "a sks cat <lora:x_content:1> <lora:x_style:0.5>"
    assert rest == plain.split("\n")[1:]
    assert rest[-1] == "Steps: 20, Sampler: Euler, Seed: 5"
    assert with_loras(plain, []) == plain


def test_a_prompt_of_several_lines_stays_whole() -> None:
    called = with_loras(infotext("a cat,\nin a park", "", WORDS), [("x", 1.0)])
    assert called.startswith("a cat,\nin a park <lora:x:1>\nSteps: 20")


def test_a_png_keeps_it_and_one_without_is_a_plain_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    save_png(image, tmp_path / "plain.png")
    assert KEY not in Image.open(tmp_path / "plain.png").info
    image.info[KEY] = "ein Käse\nSteps: 1"
    save_png(image, tmp_path / "told.png")
    assert Image.open(tmp_path / "told.png").info[KEY] == "ein Käse\nSteps: 1"


def test_the_interrogators_medium_is_the_style() -> None:
    known = ["a watercolor painting", "an oil on canvas painting", "pixel art"]
    assert medium_in("a cat, by X, a watercolor painting", known) == "watercolor painting"
    assert medium_in("a cat, pixel art, trending", known) == "pixel art"
    with pytest.raises(UnZipLoRAError, match="nothing of how"):
        medium_in("a watercolor painting, by X", known)  # the caption is of the subject


def test_half_a_character_of_a_prompt_does_not_cost_the_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.info["parameters"] = "a fox\udce9"
    save_png(image, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").info["parameters"] == "a fox?"
