"""A run from image to files: borrow the model, encode, attach, step, save, give back.

`Run` is iterated for its events, which drives it, and told what to do with `send`. What it writes
is in training/run_writer.py.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
import traceback
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from unziplora import files as atomic
from unziplora.errors import InvalidInput, TrainingFailed
from unziplora.host import Defaults, Host
from unziplora.images.load import SourceImage, fit
from unziplora.method.blocks import BlockTable, check_table
from unziplora.method.methods import table_for
from unziplora.method.prompts import BRANCHES, PROMPTS, BranchName
from unziplora.training.events import Command, Event, Finished, Outcome, Started, StepDone
from unziplora.training.memory_forecast import (
    Forecast,
    SpillWatch,
    forecast,
    is_full,
    smaller,
    trained_weights,
)
from unziplora.training.memory_plans import Plan
from unziplora.training.pair_writer import check_free, check_own, written_names
from unziplora.training.run_folder import RunFolder, RunInfo, damaged, find_run, run_path
from unziplora.training.run_writer import RunWriter
from unziplora.training.settings import PAPER_RANK, PAPER_STEPS, Settings
from unziplora.training.trainer import Losses, Trainer, TrainingInputs
from unziplora.unet.architectures import recognise
from unziplora.unet.attach import Attachment, attach, layer_shapes

_Saved = tuple[dict[str, torch.Tensor], dict[str, object]]
_STEPPED_DOWN = "The memory was full, so the run goes on with the memory plan {}. No step was lost."
_BYTES_PER_WEIGHT = 12 + 12 + 2  # a state of weight and two moments, its successor, the files


class Run:
    """One training run; made by `start` or `resume`, driven by iterating over it once."""

    def __init__(
        self, host: Host, info: RunInfo, out: Path, folder: RunFolder, image: SourceImage | None
    ) -> None:
        self.settings = info.settings
        self.info = info
        self.folder = folder
        self._host = host
        self._out = out
        self._image = image  # None: the run is resumed
        self._writer = RunWriter(host, info, out, folder)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._seconds: deque[float] = deque(maxlen=20)
        self._forecast: Forecast
        self._spills = SpillWatch(host.device)

    @classmethod
    def start(
        cls,
        image: SourceImage,
        host: Host,
        settings: Settings,
        out: Path,
        *,
        overwrite: bool = False,
    ) -> Run:
        """A new run. Raises InvalidInput before anything is written."""
        check_destination(settings, out, overwrite=overwrite)
        architecture = recognise(host.unet, host.defaults.architecture)
        if settings.blocks is not None:
            check_table(settings.blocks, architecture.groups)
        settings = with_model_defaults(settings, host.unet, host.defaults)
        pair = uuid.uuid4().hex
        info = RunInfo(settings, host.model, architecture.name, pair, time.time(), overwrite)
        run = cls(host, info, out, RunFolder(run_path(out, settings.chosen_name)), image)
        atomic.check_output_folder(out, run._bytes_needed())
        return run

    @classmethod
    def resume(cls, folder: Path, host: Host) -> Run:
        """Goes on with the run in a folder. Raises InvalidInput where it cannot, or where the host
        has another model."""
        run_folder = find_run(folder)
        info = run_folder.read_info()
        if info.settings.rank is None or info.settings.resolution is None:
            raise InvalidInput(damaged("settings.json"))
        atomic.check_name(info.settings.chosen_name)
        with run_folder.locked():
            _clear_leftovers(run_folder, info.settings.chosen_name)
        if not info.replaces:
            check_own(run_folder.out, info.settings.chosen_name, info.pair)
        if (info.model.sha256 or info.model.name) != (host.model.sha256 or host.model.name):
            raise InvalidInput(
                f"The run was trained on {info.model.name}, and this is another model "
                f"({host.model.name}). Choose the one that it began with."
            )
        return cls(host, info, run_folder.out, run_folder, None)

    @property
    def kept_in(self) -> Path:
        """The folder to resume from: another one where the run's own refused its last state."""
        return self._writer.kept_in

    def send(self, command: Command) -> None:
        """Is obeyed after the current step; from any thread."""
        self._commands.put(command)

    def __iter__(self) -> Generator[Event, None, None]:
        """The model is lent until the last event is read, or the iterator closed or forgotten."""
        with self._host.borrow():
            encoded, saved = self._encode()
            self._forecast = forecast(self._host.unet, self._host.device, self.settings)
            attachment = self._attach()
            try:
                with self._taken_folder():
                    plan = self._forecast.plan
                    with _reading_state(saved):
                        trainer = Trainer(self._host, self.settings, attachment, encoded, plan)
                        if saved is not None:
                            trainer.restore(*saved)
                            if not trainer.all_finite():
                                raise ValueError("the branches are not finite")
                    if saved is not None:
                        self._writer.rewind_progress(trainer.step)
                    yield from self._train(trainer)
            finally:
                attachment.detach()

    def _encode(self) -> tuple[TrainingInputs, _Saved | None]:
        """Image and prompts encoded, or, on a resume, taken from the saved state with it."""
        host, settings = self._host, self.settings
        if self._image is None:
            tensors, numbers = self.folder.read_state(self.info.pair)
            with _reading_state((tensors, numbers)):
                return TrainingInputs.restore(tensors, numbers, host.device), (tensors, numbers)
        assert settings.resolution is not None  # filled in by start
        fitted = fit(self._image, settings.resolution, settings.crop)
        context, pooled = host.encode_prompts([settings.prompts.text(name) for name in PROMPTS])
        drawn = torch.Generator().manual_seed(settings.seed)
        generator = drawn if settings.latent == "sample" else None
        sides = [fitted.pixels, fitted.pixels.flip(-1)] if settings.flip else [fitted.pixels]
        latents = torch.cat([host.encode_image(pixels, generator) for pixels in sides])
        return TrainingInputs(latents.float(), context, pooled, fitted.sizes), None

    def _attach(self) -> Attachment:
        settings = self.settings
        assert settings.rank is not None  # filled in by start
        return attach(
            self._host.unet,
            settings.chosen_method.on(self.info.architecture),
            self._table(),
            rank=settings.rank,
            alpha=settings.alpha or settings.rank,
            init=settings.init,
            generator=torch.Generator().manual_seed(settings.seed),
        )

    def _table(self) -> BlockTable:
        """The user's block table, a missing row being empty, or the architecture's."""
        own = self.settings.blocks
        if own is None:
            return table_for(self.info.architecture)
        return {branch: own.get(branch, ()) for branch in BRANCHES}

    @contextlib.contextmanager
    def _taken_folder(self) -> Iterator[None]:
        """The run's folder, made and locked; a new run clears what an older one left in it."""
        self.folder.make()
        with self.folder.locked():
            if self._image is not None:
                _clear_leftovers(self.folder, self.settings.chosen_name)
                self.folder.begin(self.info, self._image.image)
            yield

    def _train(self, trainer: Trainer) -> Iterator[Event]:
        settings = self.settings
        layers = len(trainer.attachment.pairs)
        yield Started(
            settings.chosen_name,
            trainer.step,
            settings.total_steps,
            self.info.architecture,
            layers,
            trainer.plan.name,
            self._forecast.text,
        )
        if self._image is not None:
            yield from (self._writer.say(note) for note in self._image.notes)
        # what a host did to the model to make it trainable, where it has something to say
        yield from (self._writer.say(note) for note in getattr(self._host, "notes", ()))
        saved_at = time.monotonic()
        outcome: Outcome = "completed"
        try:
            with contextlib.ExitStack() as lent:
                lent.enter_context(trainer.plan.on(self._host.unet, trainer.attachment))
                while trainer.step < settings.total_steps:
                    began = time.monotonic()
                    losses = self._advance(trainer)
                    if losses is None:  # the memory was full
                        lent.close()
                        trainer = self._stepped_down(trainer)
                        lent.enter_context(trainer.plan.on(self._host.unet, trainer.attachment))
                        yield self._writer.say(_STEPPED_DOWN.format(trainer.plan.name))
                        continue
                    seconds = time.monotonic() - began
                    if spilled := self._spills.message(seconds, self._median()):
                        yield self._writer.say(spilled)
                    yield self._step_done(trainer, losses, seconds)
                    if time.monotonic() - saved_at > 60 * settings.save_minutes:
                        yield self._writer.save_state(trainer)
                        saved_at = time.monotonic()
                    if _due(trainer.step, settings.snapshot_every, settings.total_steps):
                        yield self._writer.snapshot(trainer)
                    if _due(trainer.step, settings.preview_every, settings.total_steps):
                        yield self._writer.preview(trainer)
                    asked = [self._commands.get() for _ in range(self._commands.qsize())]
                    if "save now" in asked:
                        yield self._writer.save_state(trainer)
                        yield self._writer.snapshot(trainer)
                    if "preview now" in asked:
                        yield self._writer.preview(trainer)
                    if "stop and save" in asked:
                        outcome = "stopped and saved"
                        break
                    if "stop" in asked:
                        outcome = "stopped"
                        break
            if settings.preview_every and outcome == "completed":
                yield self._writer.preview(trainer)
            yield from self._end(trainer, outcome)
        except TrainingFailed:  # its numbers are not worth keeping; the state before them is
            self._writer.log(traceback.format_exc())
            raise
        except BaseException:
            self._writer.rescue(trainer)
            raise

    def _advance(self, trainer: Trainer) -> Losses | None:
        """A step's losses; None where the memory was full and a smaller plan can do the step."""
        try:
            return trainer.advance()
        except Exception as error:
            if not is_full(error) or not trainer.consistent or self._smaller(trainer) is None:
                raise
            self._writer.log(traceback.format_exc())
        return None  # here the exception is gone, and with it what its frames kept alive

    def _smaller(self, trainer: Trainer) -> Plan | None:
        """The plan to step down to: once a run, and only where the user left the choice."""
        if self.settings.memory != "auto" or trainer.plan is not self._forecast.plan:
            return None
        return smaller(trainer.plan, self._host.unet, self._host.device)

    def _stepped_down(self, trainer: Trainer) -> Trainer:
        """The same run, as of its last whole step, under the next smaller plan."""
        plan = self._smaller(trainer)
        assert plan is not None
        state = {name: tensor.cpu().clone() for name, tensor in trainer.tensors().items()}
        attachment, encoded = trainer.attachment, trainer.encoded
        smaller_one = Trainer(self._host, self.settings, attachment, encoded, plan)
        smaller_one.restore(state, trainer.numbers())
        return smaller_one

    def _median(self) -> float | None:
        """Seconds of the last steps, or None before there are enough."""
        return median(self._seconds) if len(self._seconds) > 1 else None

    def _end(self, trainer: Trainer, outcome: Outcome) -> Iterator[Event]:
        """The files, and the state where the run can go on."""
        files: Mapping[BranchName, Path] = {}
        if outcome != "completed":
            yield from self._writer.keep_state(trainer)
        if outcome != "stopped":
            files = yield from self._writer.keep_pair(trainer)
        if outcome == "completed":
            if self.settings.keep_state:
                yield self._writer.save_state(trainer)
            elif self._writer.fallback_folder is None:
                with contextlib.suppress(OSError):  # in use: it is only in the way
                    self.folder.state.unlink(missing_ok=True)
        yield Finished(outcome, trainer.step, files)

    def _step_done(self, trainer: Trainer, losses: Losses, seconds: float) -> StepDone:
        self._seconds.append(seconds)
        usual = self._median()
        left = self.settings.total_steps - trainer.step
        event = StepDone(
            step=trainer.step,
            steps=self.settings.total_steps,
            loss=losses.diffusion,
            orthogonality=losses.orthogonality,
            lr=self.settings.chosen_lr * self.settings.lr_factor(trainer.step - 1),
            open_columns=trainer.open_columns(),
            seconds=seconds,
            time_left=None if usual is None else usual * left,
            memory_gb=_peak_memory(self._host.device),
        )
        self._writer.note_progress(event)
        return event

    def _bytes_needed(self) -> int:
        """Room for the state, its successor while it replaces it, and the files."""
        return trained_weights(self._host.unet, self.settings) * _BYTES_PER_WEIGHT


def check_destination(settings: Settings, out: Path, *, overwrite: bool) -> None:
    """Raises InvalidInput where a run of this name cannot begin in a folder; needs no model."""
    name = settings.chosen_name
    atomic.check_name(name)
    atomic.check_output_folder(out)
    folder = RunFolder(run_path(out, name))
    for path in (folder.path.parent, folder.path):
        if os.path.lexists(path) and not path.is_dir():
            raise InvalidInput(
                f"{path.name} is a file, where the run's folder should be. "
                "Move it away, or choose another name or output folder."
            )
    if overwrite:
        return
    check_free(out, name)
    if folder.exists():
        raise InvalidInput(
            f"There is a run named {name} in this folder already. Resume it, overwrite it, or "
            "choose another name."
        )


@contextlib.contextmanager
def _reading_state(saved: _Saved | None) -> Iterator[None]:
    """What a damaged state leads to is said in words, where one is read."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if saved is None or is_full(error):
            raise
        raise InvalidInput(damaged("state.safetensors")) from error


def _clear_leftovers(folder: RunFolder, name: str) -> None:
    """In the run's folder and beside it, where its pair goes; the folder's lock is held."""
    folder.clear_leftovers()
    atomic.clear_leftovers(folder.out, written_names(name))


def with_model_defaults(settings: Settings, unet: nn.Module, defaults: Defaults) -> Settings:
    """Rank, resolution, steps and learning rate where the user left them to the model."""
    smallest = min(min(shape) for shape in layer_shapes(unet).values())
    steps = settings.steps
    if steps is None and defaults.steps is not None:  # a method that takes longer still does
        steps = round(defaults.steps * settings.chosen_method.steps / PAPER_STEPS)
    return replace(
        settings,
        rank=settings.rank or defaults.rank or max(1, min(PAPER_RANK, smallest // 4)),
        resolution=settings.resolution or defaults.resolution,
        steps=steps,
        lr=settings.lr or defaults.lr,
    )


def _due(step: int, every: int, last: int) -> bool:
    return every > 0 and step % every == 0 and step < last


def _peak_memory(device: torch.device) -> float | None:
    """Peak so far in GB (1e9 bytes): of the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
