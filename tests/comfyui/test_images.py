"""ComfyUI's images are trained on as if the file itself were read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unziplora.comfyui.images import batch, source_image
from unziplora.comfyui.plot import loss_plot
from unziplora.errors import InvalidInput
from unziplora.images.load import open_image


def as_load_image(path: Path) -> torch.Tensor:
    """What Load Image makes of a file."""
    array = np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255.0
    return torch.from_numpy(array)[None]


def test_every_pixel_is_the_files_own(tmp_path: Path) -> None:
    every_byte = np.arange(256, dtype=np.uint8).repeat(3 * 4).reshape(32, 32, 3)
    Image.fromarray(every_byte).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    of_comfyui = source_image(as_load_image(tmp_path / "a.png"))
    of_the_file = open_image(tmp_path / "a.png")
    assert of_comfyui.image.tobytes() == of_the_file.image.tobytes()
    assert of_comfyui.notes == of_the_file.notes


def test_the_mask_of_load_image_stands_for_transparency(tmp_path: Path) -> None:
    shown = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    shown.paste((0, 0, 0, 0), (0, 0, 32, 64))
    shown.save(tmp_path / "a.png")
    mask = 1 - torch.from_numpy(np.array(shown.getchannel("A")) / 255.0)[None]
    of_comfyui = source_image(as_load_image(tmp_path / "a.png"), mask)
    of_the_file = open_image(tmp_path / "a.png")
    assert of_comfyui.image.tobytes() == of_the_file.image.tobytes()
    assert of_comfyui.image.getpixel((5, 5)) == (255, 255, 255)


def test_an_empty_mask_of_any_size_changes_nothing(image_file: Path) -> None:
    image = as_load_image(image_file)
    with_mask = source_image(image, torch.zeros(1, 64, 64))
    assert with_mask.image.tobytes() == source_image(image).image.tobytes()
    assert with_mask.mask is None


def test_a_mask_of_another_size_is_scaled(image_file: Path) -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, :, :16] = 1
    found = source_image(as_load_image(image_file), mask).mask
    assert found is not None
    assert found.size == Image.open(image_file).size
    assert (found.getpixel((2, 60)), found.getpixel((158, 60))) == (0, 255)


def test_more_than_one_image_is_refused(image_file: Path) -> None:
    with pytest.raises(InvalidInput, match="2 are connected"):
        source_image(as_load_image(image_file).expand(2, -1, -1, -1))


def test_a_batch_has_the_fractions_that_comfyui_expects(image_file: Path) -> None:
    image = Image.open(image_file)
    assert batch([image, image]).shape == (2, 120, 160, 3)
    assert torch.equal(batch([image]), as_load_image(image_file))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_the_plot_falls_where_the_loss_falls() -> None:
    steps = list(range(1, 101))
    falling = pixels(loss_plot(steps, [1 - step / 100 for step in steps], 100))
    rising = pixels(loss_plot(steps, [step / 100 for step in steps], 100))
    mean = np.array([0xF2, 0xA6, 0x5A])
    begins, ends = slice(70, 100), slice(460, 490)

    def height(image: np.ndarray, columns: slice) -> float:
        return float(np.argwhere((image[:, columns] == mean).all(-1))[:, 0].mean())

    assert height(falling, begins) < height(falling, ends)  # rows are counted from above
    assert height(rising, begins) > height(rising, ends)


@pytest.mark.parametrize("losses", [[], [0.3], [0.3, 0.3]])
def test_a_run_of_hardly_any_steps_has_a_plot_too(losses: list[float]) -> None:
    drawn = loss_plot(list(range(1, len(losses) + 1)), losses, max(1, len(losses)))
    assert drawn.size == (512, 256)
