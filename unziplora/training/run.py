"""A run from image to files: borrow the model, encode, attach, train, restore the model.

`Run` is iterated for its events, which drives it, and takes commands with `send`. The loop is in
training/loop.py, what it writes in training/run_writer.py.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import torch

from unziplora import files
from unziplora.errors import InvalidInput
from unziplora.host import Host
from unziplora.images.load import SourceImage
from unziplora.method.blocks import BlockTable, check_groups, check_table
from unziplora.method.methods import METHODS, table_for
from unziplora.method.prompts import BRANCHES
from unziplora.training.commands import Commands
from unziplora.training.destination import check_name_free, new_run_folder
from unziplora.training.events import Command, Event
from unziplora.training.inputs import TrainingInputs
from unziplora.training.loop import TrainingLoop
from unziplora.training.memory_forecast import forecast, is_full, trained_weights
from unziplora.training.memory_plans import Plan
from unziplora.training.model_traits import ModelTraits
from unziplora.training.pair_writer import check_own, written_names
from unziplora.training.run_folder import RunFolder, RunInfo, damaged, find_run
from unziplora.training.run_writer import RunWriter
from unziplora.training.settings import Settings
from unziplora.training.start_from import FinishedPair
from unziplora.training.subject_mask import check_mask
from unziplora.training.trainer import Trainer
from unziplora.unet.architectures import recognise
from unziplora.unet.attach import Attachment, attach

_Saved = tuple[dict[str, torch.Tensor], dict[str, object]]


class Run:
    """One training run; made by `start` or `resume`, driven by iterating over it once."""

    def __init__(
        self, host: Host, info: RunInfo, folder: RunFolder, image: SourceImage | None
    ) -> None:
        self.settings = info.settings
        self.info = info
        self.folder = folder
        self._host = host
        self._image = image  # None: the run is resumed
        self._first: FinishedPair | None = None  # whose files it begins with
        self._writer = RunWriter(host, info, folder.out, folder)
        self._commands = Commands()
        self._loop: TrainingLoop | None = None

    @classmethod
    def start(
        cls,
        image: SourceImage,
        host: Host,
        settings: Settings,
        out: Path,
        *,
        overwrite: bool = False,
        start_from: FinishedPair | None = None,
        runs: Path | None = None,
    ) -> Run:
        """A new run in a destination that was checked (training/destination.py). start_from: the
        pair that it trains on. Raises InvalidInput before anything is written."""
        architecture = recognise(host.unet, host.defaults.architecture)
        if settings.blocks is not None:
            check_table(settings.blocks, architecture.groups)
        check_groups(settings.rank_by_group or {}, architecture.groups)
        check_mask(settings.mask_content, image.mask)
        if settings.mask_content != "off" and image.whole is not None:
            image = image.whole  # style learns from what content does not
        if start_from is not None:
            settings = start_from.fit(settings)
        resolved = settings.resolve(ModelTraits.of(host.unet, host.defaults))
        pair = uuid.uuid4().hex
        began_with = start_from.origin if start_from else None
        info = RunInfo(
            resolved, host.model, architecture.name, pair, time.time(), overwrite, began_with
        )
        # a state of weight, two moments and perhaps a sum, its successor, the files
        per_weight = 2 * (16 if resolved.average_last else 12) + 2
        needed = trained_weights(host.unet, resolved, architecture.name) * per_weight
        files.check_output_folder(out, needed)
        run = cls(host, info, new_run_folder(out, resolved.name, runs), image)
        run._first = start_from
        return run

    @classmethod
    def resume(cls, folder: Path, host: Host, out: Path | None = None) -> Run:
        """The rest of the run in a folder. out: where its pair goes, if that is not where the
        folder lies. Raises InvalidInput where it cannot be resumed, or where the host has another
        model."""
        run_folder = find_run(folder) if out is None else RunFolder(folder, out)
        info = run_folder.read_info()
        files.check_name(info.settings.name)
        with run_folder.locked():
            _clear_leftovers(run_folder, info.settings.name)
        if not info.replaces:
            check_own(run_folder.out, info.settings.name, info.pair)
        if (info.model.sha256 or info.model.name) != (host.model.sha256 or host.model.name):
            raise InvalidInput(
                f"The run was trained on {info.model.name}, and this is another model "
                f"({host.model.name}). Choose the one that it began with."
            )
        return cls(host, info, run_folder, None)

    @property
    def kept_in(self) -> Path:
        """The folder to resume from: another one where the run's own refused its last state."""
        return self._writer.kept_in

    @property
    def training(self) -> bool:
        """Whether image and prompts are encoded and the steps have begun."""
        return self._loop is not None

    @property
    def interruptible(self) -> bool:
        """Whether an exception raised now, in the thread that drives the run, loses nothing: the
        state is then saved on the way out, or there is none yet."""
        loop = self._loop
        return loop is None or (loop.trainer.consistent and not loop.ending)

    def send(self, command: Command) -> None:
        """Is obeyed after the current step; from any thread."""
        self._commands.send(command)

    def __iter__(self) -> Generator[Event, None, None]:
        """The model is borrowed until the last event is read, or the iterator is closed or
        forgotten."""
        with self._host.borrow():
            inputs, saved = self._inputs()
            expected = forecast(
                self._host.unet, self._host.device, self.settings, self.info.architecture
            )
            attachment = self._attach()
            try:
                with self._taken_folder() as notes:
                    trainer = self._trainer(attachment, inputs, saved, expected.plan)
                    loop = self._loop = TrainingLoop(
                        self._host, trainer, self._writer, self._commands, expected,
                        resumed=saved is not None,
                    )  # fmt: skip
                    del trainer, saved  # or they would stay in memory
                    # what a host did to the model to make it trainable, where it has that to say
                    notes += getattr(self._host, "notes", ())
                    yield from loop.run(notes)
            finally:
                attachment.detach()

    def _inputs(self) -> tuple[TrainingInputs, _Saved | None]:
        """Image and prompts encoded, or, on a resume, taken from the saved state with it."""
        if self._image is not None:
            return TrainingInputs.encode(self._host, self.settings, self._image), None
        tensors, numbers = self.folder.read_state(self.info.pair)
        with _reading_state():
            inputs = TrainingInputs.restore(tensors, numbers, self._host.device)
        return inputs, (tensors, numbers)

    def _attach(self) -> Attachment:
        settings = self.settings
        return attach(
            self._host.unet,
            METHODS[settings.method].on(self.info.architecture),
            self._table(),
            rank=settings.rank,
            ranks=settings.rank_by_group,
            alpha=settings.alpha,
            init=settings.init,
            generator=torch.Generator().manual_seed(settings.seed),
        )

    def _table(self) -> BlockTable:
        """The user's block table, a missing row being empty, or the architecture's."""
        chosen = self.settings.blocks
        if chosen is None:
            return table_for(self.info.architecture)
        return {branch: chosen.get(branch, ()) for branch in BRANCHES}

    @contextlib.contextmanager
    def _taken_folder(self) -> Iterator[list[str]]:
        """The run's folder, made and locked; a new run clears what an older one left in it. Gives
        what the user should know when the run starts."""
        notes = []
        self.folder.make()
        with self.folder.locked() as alone:
            if not alone:
                notes.append(
                    "The output folder's disk has no file locks, so nothing keeps another program "
                    "from this run's files. Do not start a second run of this name."
                )
            if self._image is not None:
                if not self.info.replaces:  # again: others may have come while the run waited
                    check_name_free(self.folder, self.settings.name)
                _clear_leftovers(self.folder, self.settings.name)
                self.folder.begin(self.info, self._image)
                notes += self._image.notes
                self._image = None  # its copy is on the disk
            yield notes

    def _trainer(
        self, attachment: Attachment, inputs: TrainingInputs, saved: _Saved | None, plan: Plan
    ) -> Trainer:
        """At the first step, or where the state was saved."""
        chosen = self.info.started_from is not None
        if self._first is not None:
            self._first.load_into(attachment)
            self._first = None  # or it would stay in memory
        if saved is None:
            return Trainer(
                self._host, self.settings, attachment, inputs, plan, columns_chosen=chosen
            )
        with _reading_state():
            trainer = Trainer(
                self._host, self.settings, attachment, inputs, plan, columns_chosen=chosen
            )
            trainer.restore(*saved)
            if not trainer.all_finite():
                raise ValueError("the branches are not finite")
        self._writer.rewind_progress(trainer.step)
        return trainer


@contextlib.contextmanager
def _reading_state() -> Iterator[None]:
    """Raises InvalidInput for what a damaged state leads to."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if is_full(error):
            raise
        raise InvalidInput(damaged("state.safetensors")) from error


def _clear_leftovers(folder: RunFolder, name: str) -> None:
    """In the run's folder and beside it, where its pair goes; the folder's lock is held."""
    folder.clear_leftovers()
    files.clear_leftovers(folder.out, written_names(name))
