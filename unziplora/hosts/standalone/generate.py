"""Images with any number of LoRAs, loaded as diffusers loads them."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file

from unziplora import files as atomic
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.hosts.standalone.sampling import GUIDANCE, bare_pipeline
from unziplora.images.infotext import KEY, save_png, with_loras
from unziplora.lora.read import TEXT_ENCODERS, read_lora
from unziplora.lora.write import tensor_hash

WeightedLora = tuple[Path, float]
_MOST_PIXELS = 4096 * 4096


def generate(
    host: StandaloneHost,
    prompt: str,
    *,
    loras: Sequence[WeightedLora] = (),
    negative: str = "",
    steps: int = 25,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    guidance: float = GUIDANCE,
) -> Image.Image:
    """An image of (height, width) = size; its `info["parameters"]` says how it was made, in the
    words in which WebUIs write it, and `info["notes"]` lists what was left out.

    Raises InvalidInput for a file that is no LoRA, or whose UNet layers do not all fit the model.
    """
    height, width = size or (host.defaults.resolution, host.defaults.resolution)
    if height % 8 or width % 8 or not 64 <= min(height, width) <= height * width <= _MOST_PIXELS:
        raise InvalidInput(
            f"An image cannot have {width} x {height} pixels. "
            "Choose multiples of 8 from 64 to 4096."
        )
    if not 1 <= steps <= 1000:
        raise InvalidInput(f"{steps} sampling steps cannot be made. Choose 1 to 1000.")
    with host.borrow(), loaded(host, loras) as notes:
        image = host.preview(
            prompt,
            negative=negative,
            size=(height, width),
            steps=steps,
            seed=seed,
            guidance=guidance,
        )
    image.info["notes"] = notes
    if loras:
        called = with_loras(image.info[KEY], [(path.stem, weight) for path, weight in loras])
        hashes = ", ".join(f"{path.stem}: {tensor_hash(path)[:12]}" for path, _ in loras)
        image.info[KEY] = f'{called}, Lora hashes: "{hashes}"'
    return image


def drawing(
    host: StandaloneHost,
    *,
    size: tuple[int, int] | None = None,
    steps: int = 25,
    guidance: float = GUIDANCE,
    note: Callable[[str], None] = lambda text: None,
) -> Callable[[Sequence[str], Sequence[WeightedLora], int], Iterator[Image.Image]]:
    """What draws the rows of a sheet (unziplora/app/sheet.py); note: told what a file lost."""
    height, width = size or (host.defaults.resolution, host.defaults.resolution)

    def draw(
        prompts: Sequence[str], loras: Sequence[WeightedLora], seed: int
    ) -> Iterator[Image.Image]:
        with host.borrow(), loaded(host, loras) as notes:
            for text in notes:
                note(text)
            for number, prompt in enumerate(prompts):
                yield host.preview(
                    prompt,
                    size=(height, width),
                    steps=steps,
                    seed=seed + number,
                    guidance=guidance,
                )

    return draw


def check_image_path(path: Path) -> str:
    """Pillow's name of the format that the path's ending asks for. Raises InvalidInput where no
    image can be written there."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(f"{path.name} does not end like an image's name. Name a .png file.")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"The folder of {path.name} does not exist. Make it first.")
    return kind


def save_image(image: Image.Image, path: Path) -> None:
    """Writes an image; a PNG keeps how it was made. Raises InvalidInput, or UnZipLoRAError where
    the disk refuses."""
    kind = check_image_path(path)
    with atomic.writing(path) as temporary:
        if kind == "PNG":
            save_png(image, temporary)
        else:
            image.save(temporary, kind)


@contextlib.contextmanager
def loaded(host: StandaloneHost, loras: Sequence[WeightedLora]) -> Iterator[list[str]]:
    """The LoRAs on the host's UNet as diffusers (peft) loads them; afterwards it has none.

    Yields a sentence for each file of which a part was left out.
    """
    pipeline = bare_pipeline(host.unet)
    try:
        notes = [
            note
            for number, (path, _) in enumerate(loras)
            for note in _load(pipeline, path, f"lora{number}")
        ]
        if loras:
            names = [f"lora{number}" for number in range(len(loras))]
            pipeline.set_adapters(names, [weight for _, weight in loras])
        yield notes
    finally:
        if loras:
            pipeline.unload_lora_weights()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """diffusers warns of text encoders without LoRA, peft of a second adapter: both are meant."""
    logger = logging.getLogger("diffusers.loaders.lora_base")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _load(pipeline: Any, path: Path, name: str) -> list[str]:
    """Loads the UNet's part of a LoRA, counts what arrived, and says what was left out."""
    file = read_lora(path)
    in_unet = {
        key: tensor for key, tensor in load_file(path).items() if not key.startswith(TEXT_ENCODERS)
    }
    try:
        with _quiet():
            pipeline.load_lora_weights(in_unet, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f"{path.name} does not fit this model. Choose a LoRA of the same architecture."
        ) from error
    arrived = sum(name in getattr(m, "lora_A", {}) for m in pipeline.unet.modules())
    if arrived != file.unet_modules or not arrived:
        raise InvalidInput(
            f"Only {arrived} of {file.unet_modules} layers of {path.name} fit this model. "
            "Choose a LoRA of the same architecture."
        )
    left_out = file.others.get("text encoder modules", 0)
    if left_out:
        return [f"{path.name}: its {left_out} text encoder layers were left out."]
    return []
