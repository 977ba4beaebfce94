"""Images with any number of LoRAs, of any program and kind, applied by value."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import nn

from unziplora import files as atomic
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.infotext import KEY, save_png, with_loras
from unziplora.lora.apply import applied, check_fits, targets_in
from unziplora.lora.key_layouts import Network
from unziplora.lora.read import LoraFile, read_lora
from unziplora.lora.write import tensor_hash

WeightedLora = tuple[Path, float]
_MOST_PIXELS = 4096 * 4096
_MOST_WEIGHT = 100.0
_MOST_GUIDANCE = 1000.0
_CALL = re.compile(r"<(?:lora|lyco|hypernet):[^>]*>")


def generate(
    host: StandaloneHost,
    prompt: str,
    *,
    loras: Sequence[WeightedLora] = (),
    negative: str = "",
    steps: int = 25,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    guidance: float | None = None,
) -> Image.Image:
    """An image of (height, width) = size; its `info["parameters"]` says how it was made, in the
    words in which WebUIs write it, and `info["notes"]` lists what was left out. guidance: None for
    the model's own.

    Raises InvalidInput for a file that is no LoRA, or whose layers do not all fit the model, and
    for numbers or words that cannot be drawn with.
    """
    height, width = size or (host.defaults.resolution, host.defaults.resolution)
    guidance = host.defaults.usual_guidance if guidance is None else guidance
    _check_request(prompt, height, width, steps, seed, guidance)
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


def _check_request(
    prompt: str, height: int, width: int, steps: int, seed: int, guidance: float
) -> None:
    if call := _CALL.search(prompt):
        raise InvalidInput(
            f"The prompt has {call[0][:60]}, which only WebUIs read. Name the file with --lora."
        )
    if height % 8 or width % 8 or not 64 <= min(height, width) <= height * width <= _MOST_PIXELS:
        raise InvalidInput(
            f"An image cannot have {width} x {height} pixels. "
            "Choose multiples of 8 from 64 to 4096."
        )
    if not 1 <= steps <= 1000:
        raise InvalidInput(f"{steps} sampling steps cannot be made. Choose 1 to 1000.")
    if not 0 <= guidance <= _MOST_GUIDANCE:  # also where it is not a number
        raise InvalidInput(f"The guidance cannot be {guidance:g}. Choose a number from 0 to 1000.")
    if not 0 <= seed < 2**63:
        raise InvalidInput("The seed is not from 0 to 9223372036854775807. Choose another one.")


def drawing(
    host: StandaloneHost,
    *,
    size: tuple[int, int] | None = None,
    steps: int = 25,
    guidance: float | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Callable[[Sequence[str], Sequence[WeightedLora], int], Iterator[Image.Image]]:
    """What draws the rows of a sheet (app/sheet.py); guidance: None for the model's own; note:
    called with what a file lost."""
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
    """The LoRAs on the host's UNet and, where they have such parts, on its text encoders;
    afterwards it has none.

    Yields a sentence for each thing of a file that was left out or is odd. Raises InvalidInput for
    a file that is no LoRA, or not of this model, and for a weight that is none.
    """
    files = [(read_lora(path), _checked_weight(path, weight)) for path, weight in loras]
    modules = targets_in("unet", host.unet)
    for file, _ in files:
        check_fits(file, modules)
    with contextlib.ExitStack() as stack:
        stack.enter_context(applied(host.unet, modules, files))
        if any(target.network != "unet" for file, _ in files for target in file.adapters):
            stack.enter_context(host.encoders_changed(lambda pair: _on_encoders(pair, files)))
        yield [note for file, _ in files for note in _notes(file)]


@contextlib.contextmanager
def _on_encoders(
    encoders: Sequence[nn.Module], files: Sequence[tuple[LoraFile, float]]
) -> Iterator[None]:
    networks: tuple[Network, Network] = ("te1", "te2")
    with contextlib.ExitStack() as stack:
        for network, encoder in zip(networks, encoders, strict=True):
            modules = targets_in(network, encoder)
            for file, _ in files:
                check_fits(file, modules)
            stack.enter_context(applied(encoder, modules, files))
        yield


def _checked_weight(path: Path, weight: float) -> float:
    if not -_MOST_WEIGHT <= weight <= _MOST_WEIGHT:  # also where it is not a number
        raise InvalidInput(
            f"{path.name} cannot have the weight {weight:g}. "
            f"Choose a number from -{_MOST_WEIGHT:g} to {_MOST_WEIGHT:g}."
        )
    return weight


def _notes(file: LoraFile) -> list[str]:
    notes = [f"{file.path.name}: {note}" for note in file.notes]
    if file.left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in file.left_out.items())
        notes.append(f"{file.path.name}: {kinds} were left out.")
    return notes
