"""The training loop: step, save if due, preview if due, obey; then the files."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from statistics import median_low

from unziplora.errors import TrainingFailed
from unziplora.host import Host, SharedHost
from unziplora.method.prompts import BranchName
from unziplora.training.clock import EverySteps, SaveClock
from unziplora.training.commands import Commands
from unziplora.training.device import peak_memory
from unziplora.training.events import (
    Command,
    Event,
    Finished,
    GivingWay,
    Outcome,
    Started,
    StepDone,
)
from unziplora.training.memory_forecast import Forecast, SpillWatch, is_full, smaller
from unziplora.training.memory_plans import Plan
from unziplora.training.previews import Previews
from unziplora.training.run_writer import RunWriter
from unziplora.training.trainer import Losses, Trainer

_STEPPED_DOWN = (
    "The memory was full, so the run continues with the memory plan {}. No step is lost."
)


class TrainingLoop:
    """Drives a trainer from its current step to the end of the run, or to a command that ends it.

    resumed: a state of the run is on the disk already.
    """

    def __init__(
        self,
        host: Host,
        trainer: Trainer,
        writer: RunWriter,
        commands: Commands,
        forecast: Forecast,
        *,
        resumed: bool,
    ) -> None:
        settings = writer.settings
        self.settings = settings
        self.trainer = trainer
        self.ending = False  # what the run ends with is being written
        self._host, self._writer, self._commands = host, writer, commands
        self._forecast = forecast
        self._under_plan = contextlib.ExitStack()  # the UNet is changed by a memory plan
        self._outcome: Outcome = "completed"
        self._previews = Previews(host, writer, commands)
        self._preview_clock = EverySteps(settings.preview_every, settings.steps)
        self._snapshot_clock = EverySteps(settings.snapshot_every, settings.steps)
        self._save_clock = SaveClock.of_run(settings.save_minutes, settings.steps, resumed=resumed)
        self._seconds: deque[float] = deque(maxlen=20)  # of the last steps
        self._spills = SpillWatch(host.device)

    def run(self, notes: Sequence[str] = ()) -> Iterator[Event]:
        """The events from the first step to the last file; the state is saved on every way out.
        notes: what the user should know first."""
        yield self._started()
        yield from map(self._writer.say, notes)
        try:
            yield from self._train()
            yield from self._end()
        except TrainingFailed:  # its numbers are not worth keeping; the state before them is
            self._writer.log(traceback.format_exc())
            raise
        except BaseException:
            self._writer.rescue(self.trainer)
            raise

    def _train(self) -> Iterator[Event]:
        with self._under_plan:
            self._enter_plan()
            while self.trainer.step < self.settings.steps and self._outcome == "completed":
                yield from self._step()
                yield from self._save_if_due()
                yield from self._preview_if_due()
                yield from self._obey()
                yield from self._give_way_if_wanted()

    def _step(self) -> Iterator[Event]:
        began = time.monotonic()
        losses = self._advance()
        if losses is None:  # the memory was full
            self._step_down()
            yield self._writer.say(_STEPPED_DOWN.format(self.trainer.plan.name))
            began = time.monotonic()
            losses = self.trainer.advance()
        yield from self._step_done(losses, time.monotonic() - began)

    def _save_if_due(self) -> Iterator[Event]:
        if self._save_clock.due(self.trainer.step):
            yield self._writer.save_state(self.trainer)
            self._save_clock.saved()
        if self._snapshot_clock.due(self.trainer.step):
            yield self._writer.snapshot(self.trainer)

    def _preview_if_due(self) -> Iterator[Event]:
        step = self.trainer.step
        if self._preview_clock.due(step):
            yield from self._previews.draw(self.trainer)
            if self.settings.preview_snapshots and not self._snapshot_clock.due(step):
                yield self._writer.snapshot(self.trainer)

    def _obey(self) -> Iterator[Event]:
        commands = self._commands.take()
        if "save now" in commands:
            yield self._writer.save_state(self.trainer)
            yield self._writer.snapshot(self.trainer)
        if "preview now" in commands:
            yield from self._previews.draw(self.trainer)
            commands |= self._commands.take()  # an interrupt of the drawing ends the run
        self._end_if_asked(commands)

    def _end_if_asked(self, commands: Set[Command]) -> None:
        if "stop and save" in commands:
            self._outcome = "stopped and saved"
        elif "stop" in commands:
            self._outcome = "stopped"

    def _give_way_if_wanted(self) -> Iterator[Event]:
        """Between two steps, to those who wait for the model. Branches and optimizer stay in
        memory, as they do while previews are drawn."""
        host = self._host
        last = self.trainer.step == self.settings.steps or self._outcome != "completed"
        if last or not isinstance(host, SharedHost) or not host.wanted():
            return
        yield GivingWay(self.trainer.step)
        self._under_plan.close()
        self.trainer.attachment.take_off()
        if host.give_way(lambda: self._commands.stopping):
            self.trainer.attachment.put_on()
            self._enter_plan()
        else:  # what the run ends with needs no model
            self._end_if_asked(self._commands.take())

    def _end(self) -> Iterator[Event]:
        """The files, and the state where the run can be resumed."""
        if self.settings.preview_every and self._outcome == "completed":
            with self.trainer.averaged():  # as the files will be, for they are on their cards
                yield from self._previews.draw(self.trainer)
        self.ending = True
        files: Mapping[BranchName, Path] = {}
        if self._outcome != "completed":
            yield from self._writer.keep_state(self.trainer)
        if self._outcome != "stopped":
            with self.trainer.averaged():
                files = yield from self._writer.keep_pair(self.trainer)
        if self._outcome == "stopped and saved":
            step = self.trainer.step
            yield self._writer.say(f"Stopped: both LoRAs saved at step {step}.")
        if self._outcome == "completed":
            yield from self._writer.end_state(self.trainer)
        yield Finished(self._outcome, self.trainer.step, files)

    def _started(self) -> Started:
        return Started(
            self.settings.name,
            self.trainer.step,
            self.settings.steps,
            self._writer.info.architecture,
            len(self.trainer.attachment.pairs),
            self.trainer.plan.name,
            self._forecast.text,
        )

    def _enter_plan(self) -> None:
        plan, attachment = self.trainer.plan, self.trainer.attachment
        self._under_plan.enter_context(plan.on(self._host.unet, attachment))

    def _advance(self) -> Losses | None:
        """A step's losses; None where the memory was full and a smaller plan can do the step."""
        try:
            return self.trainer.advance()
        except Exception as error:  # torch names a full memory in several ways
            if not is_full(error) or not self.trainer.consistent or self._smaller() is None:
                raise
            self._writer.log(traceback.format_exc())
        return None  # here the exception is gone, and with it what its frames kept alive

    def _smaller(self) -> Plan | None:
        """The plan to step down to: once a run, and only where the user left the choice."""
        if self.settings.memory != "auto" or self.trainer.plan is not self._forecast.plan:
            return None
        return smaller(self.trainer.plan, self._host.unet, self._host.device)

    def _step_down(self) -> None:
        """The same run, as of its last whole step, under the next smaller plan."""
        old, plan = self.trainer, self._smaller()
        if plan is None:
            raise RuntimeError("there is no smaller plan")
        self._under_plan.close()
        state = {name: tensor.cpu().clone() for name, tensor in old.tensors().items()}
        numbers = old.numbers()
        self.trainer = Trainer(
            self._host, self.settings, old.attachment, old.encoded, plan,
            columns_chosen=old.columns_chosen,
        )  # fmt: skip
        self.trainer.restore(state, numbers)
        self._enter_plan()

    def _step_done(self, losses: Losses, seconds: float) -> Iterator[Event]:
        if spilled := self._spills.message(seconds, self._usual_seconds()):
            yield self._writer.say(spilled)
        self._seconds.append(seconds)
        usual, step = self._usual_seconds(), self.trainer.step
        event = StepDone(
            step=step,
            steps=self.settings.steps,
            loss=losses.diffusion,
            orthogonality=losses.orthogonality,
            lr=self.settings.lr * self.settings.lr_factor(step - 1),
            open_columns=self.trainer.open_columns(),
            seconds=seconds,
            time_left=None if usual is None else usual * (self.settings.steps - step),
            memory_gb=peak_memory(self._host.device),
            leak=losses.leak,
        )
        self._writer.note_progress(event)
        yield event

    def _usual_seconds(self) -> float | None:
        """Of the last steps, None before two. Of two, the shorter: the first is slow."""
        return median_low(self._seconds) if len(self._seconds) > 1 else None
