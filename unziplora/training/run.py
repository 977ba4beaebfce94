"""A run from picture to files: borrow the model, encode, attach, step, save, give back.

`Run` is iterated for its events, which drives it, and told what to do with `send`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import time
import traceback
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import nn

from unziplora import atomic
from unziplora.errors import BadInput, CannotWrite, TrainingFailed, UnZipLoRAError
from unziplora.method.blocks import BlockTable, check_table
from unziplora.method.methods import table_for
from unziplora.method.prompts import BRANCHES, PROMPTS, BranchName
from unziplora.training.events import (
    Command,
    Event,
    Finished,
    LorasSaved,
    Message,
    Outcome,
    Previewed,
    Started,
    StateSaved,
    StepDone,
)
from unziplora.training.host import Defaults, Host
from unziplora.training.infotext import KEY, save_png, with_loras
from unziplora.training.memory import (
    Forecast,
    SpillWatch,
    forecast,
    is_full,
    smaller,
    trained_weights,
)
from unziplora.training.output import (
    Made,
    check_free,
    check_own,
    write_cards,
    write_pair,
    written_names,
)
from unziplora.training.picture import Picture, fit
from unziplora.training.plan import Plan
from unziplora.training.settings import PAPER_RANK, PAPER_STEPS, Settings
from unziplora.training.state import RunFolder, RunInfo, damaged
from unziplora.training.trainer import Encoded, Losses, Trainer
from unziplora.unet.attach import Attachment, attach, layer_shapes
from unziplora.unet.names import recognise

_Saved = tuple[dict[str, torch.Tensor], dict[str, object]]
_STEPPED_DOWN = "The memory was full, so the run goes on with the memory plan {}. No step was lost."
_BYTES_PER_WEIGHT = 12 + 12 + 2  # a state of weight and two moments, its successor, the files


class Run:
    """One training run; made by `start` or `resume`, driven by iterating over it once."""

    def __init__(
        self, host: Host, info: RunInfo, out: Path, folder: RunFolder, picture: Picture | None
    ) -> None:
        self.settings = info.settings
        self.info = info
        self.folder = folder
        self._host = host
        self._out = out
        self._picture = picture  # None: the run is resumed
        self.kept_in = folder.path  # the folder to resume from
        self._refuge: Path | None = None  # made where out or folder refuse what the run ends with
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._seconds: deque[float] = deque(maxlen=20)
        self._forecast: Forecast
        self._spills = SpillWatch(host.device)

    @classmethod
    def start(
        cls, picture: Picture, host: Host, settings: Settings, out: Path, *, overwrite: bool = False
    ) -> Run:
        """A new run. Raises BadInput before anything is written."""
        check_destination(settings, out, overwrite=overwrite)
        architecture = recognise(host.unet)
        if settings.blocks is not None:
            check_table(settings.blocks, architecture.groups)
        settings = with_model_defaults(settings, host.unet, host.defaults)
        pair = uuid.uuid4().hex
        info = RunInfo(settings, host.model, architecture.name, pair, time.time(), overwrite)
        run = cls(host, info, out, RunFolder(out / settings.chosen_name), picture)
        atomic.check_output_folder(out, run._bytes_needed())
        return run

    @classmethod
    def resume(cls, folder: Path, host: Host) -> Run:
        """Goes on with the run in a folder. Raises BadInput where it cannot, or where the host
        has another model."""
        run_folder = RunFolder(folder.absolute())
        info = run_folder.read_info()
        if info.settings.rank is None or info.settings.resolution is None:
            raise BadInput(damaged("settings.json"))
        atomic.check_name(info.settings.chosen_name)
        with run_folder.locked():
            _clear_leftovers(run_folder, info.settings.chosen_name)
        if not info.replaces:
            check_own(run_folder.path.parent, info.settings.chosen_name, info.pair)
        if (info.model.sha256 or info.model.name) != (host.model.sha256 or host.model.name):
            raise BadInput(
                f"The run was trained on {info.model.name}, and this is another model "
                f"({host.model.name}). Choose the one that it began with."
            )
        return cls(host, info, run_folder.path.parent, run_folder, None)

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
                            if not trainer.finite():
                                raise ValueError("the branches are not finite")
                    if saved is not None:
                        self._rewind_progress(trainer.step)
                    yield from self._train(trainer)
            finally:
                attachment.detach()

    def _encode(self) -> tuple[Encoded, _Saved | None]:
        """Picture and prompts encoded, or, on a resume, taken from the saved state with it."""
        host, settings = self._host, self.settings
        if self._picture is None:
            tensors, numbers = self.folder.read_state(self.info.pair)
            with _reading_state((tensors, numbers)):
                return Encoded.restore(tensors, numbers, host.device), (tensors, numbers)
        assert settings.resolution is not None  # filled in by start
        fitted = fit(self._picture, settings.resolution, settings.crop)
        context, pooled = host.encode_prompts([settings.prompts.text(name) for name in PROMPTS])
        drawn = torch.Generator().manual_seed(settings.seed)
        generator = drawn if settings.latent == "sample" else None
        sides = [fitted.pixels, fitted.pixels.flip(-1)] if settings.flip else [fitted.pixels]
        latents = torch.cat([host.encode_image(pixels, generator) for pixels in sides])
        return Encoded(latents.float(), context, pooled, fitted.sizes), None

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
        atomic.make_folder(self._out)
        atomic.make_folder(self.folder.path)
        with self.folder.locked():
            if self._picture is not None:
                _clear_leftovers(self.folder, self.settings.chosen_name)
                self.folder.begin(self.info, self._picture.image)
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
        if self._picture is not None:
            yield from (self._say(note) for note in self._picture.notes)
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
                        yield self._say(_STEPPED_DOWN.format(trainer.plan.name))
                        continue
                    seconds = time.monotonic() - began
                    if spilled := self._spills.message(seconds, self._median()):
                        yield self._say(spilled)
                    yield self._step_done(trainer, losses, seconds)
                    if time.monotonic() - saved_at > 60 * settings.save_minutes:
                        yield self._save_state(trainer)
                        saved_at = time.monotonic()
                    if _due(trainer.step, settings.snapshot_every, settings.total_steps):
                        yield self._snapshot(trainer)
                    if _due(trainer.step, settings.preview_every, settings.total_steps):
                        yield self._preview(trainer)
                    asked = [self._commands.get() for _ in range(self._commands.qsize())]
                    if "save now" in asked:
                        yield self._save_state(trainer)
                        yield self._snapshot(trainer)
                    if "preview now" in asked:
                        yield self._preview(trainer)
                    if "stop and save" in asked:
                        outcome = "stopped and saved"
                        break
                    if "stop" in asked:
                        outcome = "stopped"
                        break
            if settings.preview_every and outcome == "completed":
                yield self._preview(trainer)
            yield from self._end(trainer, outcome)
        except TrainingFailed:  # its numbers are not worth keeping; the state before them is
            self._log(traceback.format_exc())
            raise
        except BaseException:
            self._rescue(trainer)
            raise

    def _advance(self, trainer: Trainer) -> Losses | None:
        """A step's losses; None where the memory was full and a smaller plan can do the step."""
        try:
            return trainer.advance()
        except Exception as error:
            if not is_full(error) or not trainer.sound or self._smaller(trainer) is None:
                raise
            self._log(traceback.format_exc())
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
            yield from self._keep_state(trainer)
        if outcome != "stopped":
            files = yield from self._keep_pair(trainer)
        if outcome == "completed":
            if self.settings.keep_state:
                yield self._save_state(trainer)
            elif self._refuge is None:
                with contextlib.suppress(OSError):  # in use: it is only in the way
                    self.folder.state.unlink(missing_ok=True)
        yield Finished(outcome, trainer.step, files)

    def _keep_state(self, trainer: Trainer) -> Iterator[Event]:
        """The last state of a run that ends early: elsewhere, where its own folder refuses it."""
        try:
            yield self._write_state(trainer)
        except CannotWrite as error:
            yield self._say(str(error))
            folder = RunFolder(self._elsewhere() / self.folder.path.name)
            atomic.make_folder(folder.path)
            folder.write_info(self.info)
            folder.save_state(trainer, self.info.pair)
            self.kept_in = folder.path
            yield self._say(f"The state was saved in {folder.path} instead. Resume it from there.")
            yield StateSaved(trainer.step)

    def _keep_pair(self, trainer: Trainer) -> Generator[Event, None, Mapping[BranchName, Path]]:
        """The pair with its cards: elsewhere, where its own folder refuses it."""
        name, made = self.settings.chosen_name, self._made(trainer)
        pair = (trainer.attachment, self.info, self._host, made)
        pictures = self._pictures(trainer.step)
        try:
            atomic.make_folder(self._out)
            files = write_pair(*pair, self._out, name, pictures)
        except CannotWrite as error:
            yield self._say(str(error))
            folder = self._elsewhere()
            files = write_pair(*pair, folder, name, pictures)
            yield self._say(f"Both LoRAs were written to {folder} instead. Move them from there.")
        try:
            write_cards(*pair, files, pictures)
        except CannotWrite as error:
            yield self._say(f"A card beside the LoRAs is missing. {error}")
        yield LorasSaved(trainer.step, files, snapshot=False)
        return files

    def _elsewhere(self) -> Path:
        """A new folder that only this user can read, on the disk for temporary files."""
        if self._refuge is None:
            self._refuge = Path(tempfile.mkdtemp(prefix="unziplora-"))
        return self._refuge

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
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.append_progress(
                {
                    "step": event.step,
                    "loss": event.loss,
                    "orthogonality": event.orthogonality,
                    "lr": event.lr,
                    "open_content": event.open_columns["content"],
                    "open_style": event.open_columns["style"],
                    "seconds": round(seconds, 3),
                }
            )
        return event

    def _save_state(self, trainer: Trainer) -> Event:
        """A save that fails does not end the run: the earlier state is still there."""
        try:
            return self._write_state(trainer)
        except CannotWrite as error:
            return self._say(str(error))
        except Exception as error:  # no memory for a copy on the CPU
            self._log(traceback.format_exc())
            return self._say(f"The state was not saved ({error}). The earlier one is kept.")

    def _write_state(self, trainer: Trainer) -> Event:
        """The state in the run's folder, which is made again where somebody removed it. Raises
        CannotWrite."""
        if not trainer.finite():
            return self._say(
                "The state was not saved, because some trained numbers are infinite or NaN. "
                "The earlier state is kept; start again with a lower learning rate."
            )
        if not self.folder.exists():
            atomic.make_folder(self._out)
            atomic.make_folder(self.folder.path)
            self.folder.write_info(self.info)
        self.folder.save_state(trainer, self.info.pair)
        return StateSaved(trainer.step)

    def _snapshot(self, trainer: Trainer) -> Event:
        name = f"{self.settings.chosen_name}-{trainer.step:06d}"
        try:
            atomic.make_folder(self.folder.snapshots)
            made, folder = self._made(trainer), self.folder.snapshots
            files = write_pair(trainer.attachment, self.info, self._host, made, folder, name, {})
        except Exception as error:
            self._log(traceback.format_exc())
            return self._say(f"The snapshot was not saved. {error}")
        return LorasSaved(trainer.step, files, snapshot=True)

    def _made(self, trainer: Trainer) -> Made:
        return Made(trainer.step, trainer.picture_size, trainer.plan.checkpointing)

    def _pictures(self, step: int) -> dict[BranchName, Image.Image]:
        """Those on the pair's cards: the last previews, or the picture trained on."""
        found = {}
        for branch in BRANCHES:
            for path in (self.folder.previews / f"{step:06d}_{branch}.png", self.folder.picture):
                # whatever is wrong with a picture, the LoRAs are what counts
                with contextlib.suppress(Exception), Image.open(path, formats=("PNG",)) as image:
                    found[branch] = image.convert("RGB")
                    break
        return found

    def _preview(self, trainer: Trainer) -> Event:
        """Base, content, style and both on one seed; a preview that fails never ends a run."""
        prompts = self.settings.prompts
        wanted: dict[str, tuple[str, dict[BranchName, float]]] = {
            "base": (prompts.combined, {}),
            "content": (prompts.content, {"content": 1.0}),
            "style": (prompts.style, {"style": 1.0}),
            "both": (prompts.combined, {"content": 1.0, "style": 1.0}),
        }
        resolution = self.settings.resolution or self._host.defaults.resolution
        pictures = {}
        try:
            atomic.make_folder(self.folder.previews)
            for name, (prompt, weights) in wanted.items():
                trainer.attachment.switch.plain(weights)
                with torch.no_grad():
                    picture = self._host.preview(
                        prompt,
                        negative=self.settings.preview_negative,
                        size=(resolution, resolution),
                        steps=self.settings.preview_steps,
                        seed=self.settings.seed,
                    )
                if KEY in picture.info:  # as it can be drawn again, from the files
                    calls = [(f"{self.settings.chosen_name}_{b}", w) for b, w in weights.items()]
                    picture.info[KEY] = with_loras(picture.info[KEY], calls)
                path = self.folder.previews / f"{trainer.step:06d}_{name}.png"
                with atomic.writing(path) as temporary:
                    save_png(picture, temporary)
                pictures[name] = path
        except Exception as error:
            self._log(traceback.format_exc())
            return self._say(f"The preview failed ({error}). Training goes on without it.")
        return Previewed(trainer.step, pictures)

    def _rescue(self, trainer: Trainer) -> None:
        """On the way out of an exception: the log, and the state where it is whole."""
        self._log(traceback.format_exc())
        if not (trainer.sound and trainer.step):
            return
        try:
            list(self._keep_state(trainer))
        except Exception:  # the exception that ends the run is the one to be told of
            self._log(traceback.format_exc())

    def _rewind_progress(self, step: int) -> None:
        with contextlib.suppress(OSError, UnZipLoRAError):  # a full disk must not keep it
            self.folder.rewind_progress(step)

    def _say(self, text: str) -> Message:
        self._log(text)
        return Message(text)

    def _log(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self.folder.note(text)

    def _bytes_needed(self) -> int:
        """Room for the state, its successor while it replaces it, and the files."""
        return trained_weights(self._host.unet, self.settings) * _BYTES_PER_WEIGHT


def check_destination(settings: Settings, out: Path, *, overwrite: bool) -> None:
    """Raises BadInput where a run of this name cannot begin in a folder; needs no model."""
    name = settings.chosen_name
    atomic.check_name(name)
    atomic.check_output_folder(out)
    if os.path.lexists(out / name) and not (out / name).is_dir():
        raise BadInput(
            f"{name} is a file in this folder, where the run's own folder should go. "
            "Choose another name."
        )
    if overwrite:
        return
    check_free(out, name)
    if RunFolder(out / name).exists():
        raise BadInput(
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
        raise BadInput(damaged("state.safetensors")) from error


def _clear_leftovers(folder: RunFolder, name: str) -> None:
    """In the run's folder and beside it, where its pair goes; the folder's lock is held."""
    folder.clear_leftovers()
    atomic.clear_leftovers(folder.path.parent, written_names(name))


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
