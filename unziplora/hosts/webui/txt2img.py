"""Images by a WebUI's own txt2img: previews of a run, and sheets of finished pairs.

File and line numbers are those of Automatic1111 1.10.1.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unziplora.errors import Interrupted, InvalidInput, UnZipLoRAError

JOB = "UnZipLoRA training"  # what the WebUI calls a run
SHEET_STEPS = 20
# the page's last prompt, below the data folder (modules/processing.py:975); ersatzForge has one of
# txt2img and one of img2img (its processing.py:1111)
LAST_PROMPTS = ("params.txt", "params-t2i.txt", "params-i2i.txt")


def webui(name: str) -> Any:
    """A module of the WebUI: modules.NAME."""
    return importlib.import_module(f"modules.{name}")


def job(
    prompt: str,
    *,
    negative: str,
    size: tuple[int, int],
    steps: int,
    seed: int,
    sampler: str = "",
    guidance: float | None = None,
) -> Any:
    """What the WebUI calls a processing, with its own defaults for all that is not given. size:
    (height, width). sampler: its name, perhaps with a schedule type's behind it. Raises
    InvalidInput for one that the WebUI does not have."""
    sampler_name, schedule = _sampler(sampler)
    made = webui("processing").StableDiffusionProcessingTxt2Img(
        sd_model=webui("shared").sd_model,
        prompt=prompt,
        negative_prompt=negative,
        seed=seed,
        sampler_name=sampler_name,
        steps=steps,
        height=size[0],
        width=size[1],
        do_not_save_samples=True,
        do_not_save_grid=True,
        **({} if guidance is None else {"cfg_scale": guidance}),
        **({} if schedule is None else {"scheduler": schedule}),
    )
    made.scripts = webui("scripts").ScriptRunner()  # none; reForge asks it (processing.py:1065)
    return made


def _sampler(chosen: str) -> tuple[str | None, str | None]:
    """The chosen sampler and schedule type, of "DPM++ 2M Karras" as of "DPM++ 2M"; None: the
    WebUI's own. Where nothing is chosen, the first sampler: what the WebUIs take for None, and
    forge-classic would not write into the infotext."""
    names = [str(sampler.name) for sampler in getattr(webui("sd_samplers"), "samplers", None) or ()]
    if not chosen:
        return (names[0] if names else None), None
    known = {name.lower(): name for name in names}
    if name := known.get(chosen.lower()):
        return name, None
    for schedule in _schedule_types():
        name = known.get(chosen.lower().removesuffix(f" {schedule.lower()}"))
        if name is not None:
            return name, schedule
    raise InvalidInput(
        f"This WebUI has no sampler {chosen!r}. Choose one of {', '.join(names)}; a schedule type "
        "may stand behind it."
    )


def _schedule_types() -> list[str]:
    """Their labels; none in forge-classic, whose samplers are named with them."""
    try:
        return [str(kind.label) for kind in webui("sd_schedulers").schedulers]
    except ImportError:
        return []


def image(job: Any) -> Image.Image:
    """Raises Interrupted after an interrupt, and UnZipLoRAError where there is none."""
    images = webui("processing").process_images(job).images
    if webui("shared").state.interrupted:
        raise Interrupted("The image was interrupted in the WebUI.")
    if not images:
        raise UnZipLoRAError("The WebUI made no image. See its console.")
    made: Image.Image = images[0]
    return made


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps what a generation writes over: progress, and the page's last prompt."""
    state = webui("shared").state
    names = ("job", "job_no", "job_count", "sampling_step", "sampling_steps", "textinfo")
    kept = {name: getattr(state, name) for name in names}
    files = [Path(webui("paths").data_path) / name for name in LAST_PROMPTS]
    texts = {file: file.read_bytes() if file.is_file() else None for file in files}
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(state, name, value)
        for file, text in texts.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(text)


def draw(
    prompts: Sequence[str],
    loras: Sequence[tuple[Path, float]],
    seed: int,
    side: int,
    folder: Path,
) -> Iterator[Image.Image]:
    """A square image of `side` pixels for each prompt, with LoRAs of the WebUI's Lora folder; the
    first has this seed, the next the next one. Waits for the WebUI's queue before each.

    Raises InvalidInput for a file in another folder, which a prompt cannot name.
    """
    shared = webui("shared")
    for path, _ in loras:
        if folder.resolve() not in path.resolve().parents:
            raise InvalidInput(
                f"{path.name} is not in the WebUI's Lora folder, where prompts find LoRAs. "
                "Move it there."
            )
    calls = "".join(f" <lora:{path.stem}:{weight:g}>" for path, weight in loras)
    for number, prompt in enumerate(prompts):
        with webui("call_queue").queue_lock:
            shared.state.begin(job="UnZipLoRA sheet")
            try:
                with undisturbed():
                    made = image(job(prompt + calls, negative="", size=(side, side),
                                       steps=SHEET_STEPS, seed=seed + number))  # fmt: skip
            finally:
                shared.state.end()
        yield made
