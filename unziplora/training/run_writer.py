"""What a run leaves on disk: states, pairs with cards, snapshots, previews, progress, log.

Nothing here ends a run that can go on: what fails is said, and at the end it is saved elsewhere.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image

from unziplora import files as atomic
from unziplora.errors import UnZipLoRAError, WriteError
from unziplora.host import Host
from unziplora.images.infotext import KEY, save_png, with_loras
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.events import Event, LorasSaved, Message, Previewed, StateSaved, StepDone
from unziplora.training.pair_writer import TrainingInfo, write_cards, write_pair
from unziplora.training.run_folder import RunFolder, RunInfo
from unziplora.training.trainer import Trainer


class RunWriter:
    """Writes for one run: its state and logs into `folder`, its pair into `out`.

    kept_in: the folder to resume from. fallback_folder: where what the run ends with went, if out
    or folder refused it.
    """

    def __init__(self, host: Host, info: RunInfo, out: Path, folder: RunFolder) -> None:
        self.settings = info.settings
        self.info = info
        self.folder = folder
        self.kept_in = folder.path
        self.fallback_folder: Path | None = None
        self._host = host
        self._out = out

    def keep_state(self, trainer: Trainer) -> Iterator[Event]:
        """The last state of a run that ends early: elsewhere, where its own folder refuses it."""
        try:
            yield self._write_state(trainer)
        except WriteError as error:
            yield self.say(str(error))
            folder = RunFolder(self._elsewhere() / self.folder.name)
            folder.make()
            folder.write_info(self.info)
            folder.save_state(trainer, self.info.pair)
            self.kept_in = folder.path
            yield self.say(f"The state was saved in {folder.path} instead. Resume it from there.")
            yield StateSaved(trainer.step)

    def keep_pair(self, trainer: Trainer) -> Generator[Event, None, Mapping[BranchName, Path]]:
        """The pair with its cards: elsewhere, where its own folder refuses it."""
        name, made = self.settings.chosen_name, self._made(trainer)
        pair = (trainer.attachment, self.info, self._host, made)
        images = self._images(trainer.step)
        try:
            atomic.make_folder(self._out)
            files = write_pair(*pair, self._out, name, images)
        except WriteError as error:
            yield self.say(str(error))
            folder = self._elsewhere()
            files = write_pair(*pair, folder, name, images)
            yield self.say(f"Both LoRAs were written to {folder} instead. Move them from there.")
        try:
            write_cards(*pair, files, images)
        except WriteError as error:
            yield self.say(f"A card beside the LoRAs is missing. {error}")
        yield LorasSaved(trainer.step, files, snapshot=False)
        return files

    def save_state(self, trainer: Trainer) -> Event:
        """A save that fails does not end the run: the earlier state is still there."""
        try:
            return self._write_state(trainer)
        except WriteError as error:
            return self.say(str(error))
        except Exception as error:  # no memory for a copy on the CPU
            self.log(traceback.format_exc())
            return self.say(f"The state was not saved ({error}). The earlier one is kept.")

    def _write_state(self, trainer: Trainer) -> Event:
        """The state in the run's folder, which is made again where somebody removed it. Raises
        WriteError."""
        if not trainer.all_finite():
            return self.say(
                "The state was not saved, because some trained numbers are infinite or NaN. "
                "The earlier state is kept; start again with a lower learning rate."
            )
        if not self.folder.exists():
            self.folder.make()
            self.folder.write_info(self.info)
        self.folder.save_state(trainer, self.info.pair)
        return StateSaved(trainer.step)

    def snapshot(self, trainer: Trainer) -> Event:
        name = f"{self.settings.chosen_name}-{trainer.step:06d}"
        try:
            atomic.make_folder(self.folder.snapshots)
            made, folder = self._made(trainer), self.folder.snapshots
            files = write_pair(trainer.attachment, self.info, self._host, made, folder, name, {})
        except Exception as error:
            self.log(traceback.format_exc())
            return self.say(f"The snapshot was not saved. {error}")
        return LorasSaved(trainer.step, files, snapshot=True)

    def preview(self, trainer: Trainer) -> Event:
        """Base, content, style and both on one seed; a preview that fails never ends a run."""
        prompts = self.settings.prompts
        wanted: dict[str, tuple[str, dict[BranchName, float]]] = {
            "base": (prompts.combined, {}),
            "content": (prompts.content, {"content": 1.0}),
            "style": (prompts.style, {"style": 1.0}),
            "both": (prompts.combined, {"content": 1.0, "style": 1.0}),
        }
        resolution = self.settings.resolution or self._host.defaults.resolution
        images = {}
        try:
            atomic.make_folder(self.folder.previews)
            for name, (prompt, weights) in wanted.items():
                trainer.attachment.mode.use_weights(weights)
                with torch.no_grad():
                    drawn = self._host.preview(
                        prompt,
                        negative=self.settings.preview_negative,
                        size=(resolution, resolution),
                        steps=self.settings.preview_steps,
                        seed=self.settings.seed,
                    )
                if KEY in drawn.info:  # as it can be drawn again, from the files
                    calls = [(f"{self.settings.chosen_name}_{b}", w) for b, w in weights.items()]
                    drawn.info[KEY] = with_loras(drawn.info[KEY], calls)
                path = self.folder.previews / f"{trainer.step:06d}_{name}.png"
                with atomic.writing(path) as temporary:
                    save_png(drawn, temporary)
                images[name] = path
        except Exception as error:
            self.log(traceback.format_exc())
            return self.say(f"The preview failed ({error}). Training goes on without it.")
        return Previewed(trainer.step, images)

    def rescue(self, trainer: Trainer) -> None:
        """On the way out of an exception: the log, and the state where it is whole."""
        self.log(traceback.format_exc())
        if not (trainer.consistent and trainer.step):
            return
        try:
            list(self.keep_state(trainer))
        except Exception:  # the exception that ends the run is the one to be told of
            self.log(traceback.format_exc())

    def say(self, text: str) -> Message:
        self.log(text)
        return Message(text)

    def log(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.note(text)

    def note_progress(self, event: StepDone) -> None:
        """A row of progress.csv."""
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.append_progress(
                {
                    "step": event.step,
                    "loss": event.loss,
                    "orthogonality": event.orthogonality,
                    "lr": event.lr,
                    "open_content": event.open_columns["content"],
                    "open_style": event.open_columns["style"],
                    "seconds": round(event.seconds, 3),
                }
            )

    def rewind_progress(self, step: int) -> None:
        with contextlib.suppress(OSError, UnZipLoRAError):  # a full disk must not keep it
            self.folder.rewind_progress(step)

    def _elsewhere(self) -> Path:
        """A new folder that only this user can read, on the disk for temporary files."""
        if self.fallback_folder is None:
            self.fallback_folder = Path(tempfile.mkdtemp(prefix="unziplora-"))
        return self.fallback_folder

    def _made(self, trainer: Trainer) -> TrainingInfo:
        return TrainingInfo(trainer.step, trainer.image_size, trainer.plan)

    def _images(self, step: int) -> dict[BranchName, Image.Image]:
        """Those on the pair's cards: the last previews, or the image trained on."""
        found = {}
        for branch in BRANCHES:
            for path in (self.folder.previews / f"{step:06d}_{branch}.png", self.folder.image):
                # whatever is wrong with an image, the LoRAs are what counts
                with contextlib.suppress(Exception), Image.open(path, formats=("PNG",)) as image:
                    found[branch] = image.convert("RGB")
                    break
        return found
