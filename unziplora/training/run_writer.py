"""What a run leaves on disk: states, pairs with cards, snapshots, progress, log.

Nothing here ends a run that can continue: a failure becomes a message, and what a run ends with is
then saved in another folder.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from unziplora.errors import UnZipLoRAError, WriteError
from unziplora.files import make_folder
from unziplora.host import Host
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.destination import unclaimed_name
from unziplora.training.events import Event, LorasSaved, Message, StateSaved, StepDone
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
        name = self._free_name()
        if name != self.settings.name:
            yield self.say(
                f"Files named {self.settings.name} have appeared meanwhile and are kept. "
                f"This run's LoRAs are named {name}."
            )
        made = replace(self._training_info(trainer), averaged=trainer.averaged_steps)
        pair = (trainer.attachment, self.info, self._host, made)
        images = self._images(trainer.step)
        try:
            make_folder(self._out)
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

    def _free_name(self) -> str:
        """The run's name, unless it may not replace the files that have it now."""
        if self.info.replaces:
            return self.settings.name
        return unclaimed_name(self._out, self.settings.name, self.info.pair)

    def save_state(self, trainer: Trainer) -> Event:
        """A save that fails does not end the run; the message says what the disk still has."""
        try:
            return self._write_state(trainer)
        except WriteError as error:
            return self.say(f"{error} {self._what_is_saved()}")
        except Exception as error:  # no memory for a copy on the CPU
            self.log(traceback.format_exc())
            return self.say(f"The state was not saved ({error}). {self._what_is_saved()}")

    def end_state(self, trainer: Trainer) -> Iterator[Event]:
        """After a run that is complete: a last state where it is wanted, else none."""
        if self.settings.keep_state:
            yield self.save_state(trainer)
        elif self.fallback_folder is None:
            with contextlib.suppress(OSError):  # in use: it is only in the way
                self.folder.state.unlink(missing_ok=True)

    def _write_state(self, trainer: Trainer) -> Event:
        """The state in the run's folder, which is made again where somebody removed it. Raises
        WriteError."""
        if not trainer.all_finite():
            return self.say(
                "The state was not saved, because some trained numbers are infinite or NaN. "
                f"Start again with a lower learning rate. {self._what_is_saved()}"
            )
        if not self.folder.exists():
            self.folder.make()
            self.folder.write_info(self.info)
        self.folder.save_state(trainer, self.info.pair)
        return StateSaved(trainer.step)

    def _what_is_saved(self) -> str:
        """As the disk says now."""
        step = self.folder.saved_step(self.info.pair)
        return "No state is saved yet." if step is None else f"The state of step {step} is kept."

    def snapshot(self, trainer: Trainer) -> Event:
        name = f"{self.settings.name}-{trainer.step:06d}"
        try:
            make_folder(self.folder.snapshots)
            training, folder = self._training_info(trainer), self.folder.snapshots
            files = write_pair(
                trainer.attachment, self.info, self._host, training, folder, name, {}
            )
        except Exception as error:
            self.log(traceback.format_exc())
            return self.say(f"The snapshot was not saved. {error}")
        return LorasSaved(trainer.step, files, snapshot=True)

    def rescue(self, trainer: Trainer) -> None:
        """On the way out of an exception: the log, and the state where it is whole."""
        self.log(traceback.format_exc())
        if not (trainer.consistent and trainer.step):
            return
        try:
            list(self.keep_state(trainer))
        except Exception:  # the exception that ends the run is the one to report
            self.log(traceback.format_exc())

    def say(self, text: str) -> Message:
        self.log(text)
        return Message(text)

    def log(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.note(text)

    def note_progress(self, event: StepDone) -> None:
        """A row of progress.csv; the leak only where it is trained against, empty in steps without
        it."""
        leak = {"leak": event.leak} if self.settings.leak_penalty else {}
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.append_progress(
                {
                    "step": event.step,
                    "loss": event.loss,
                    "orthogonality": event.orthogonality,
                    "lr": event.lr,
                    "open_content": event.open_columns["content"],
                    "open_style": event.open_columns["style"],
                    **leak,
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

    def _training_info(self, trainer: Trainer) -> TrainingInfo:
        return TrainingInfo(trainer.step, trainer.image_size, trainer.plan)

    def _images(self, step: int) -> dict[BranchName, Image.Image]:
        """Those on the pair's cards: the latest previews; the image trained on only where the
        user agreed, for cards are seen by others."""
        images = {}
        for branch in BRANCHES:
            drawn = sorted(self.folder.previews.glob(f"*_{branch}.png"), reverse=True)
            # numbers of six digits: the order of names is that of steps
            shown = [path for path in drawn if path.name <= f"{step:06d}_{branch}.png"]
            if self.settings.image_on_cards:
                shown.append(self.folder.image)
            for path in shown:
                # whatever is wrong with an image, the LoRAs are what counts
                with contextlib.suppress(Exception), Image.open(path, formats=("PNG",)) as image:
                    images[branch] = image.convert("RGB")
                    break
        return images
