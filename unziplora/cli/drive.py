"""Drives a run from the command line: its events as one progress bar, and what is left of it."""

from __future__ import annotations

import contextlib
import signal
import sys

from tqdm import tqdm

from unziplora.cli.signals import Ended, RunSignals, handled
from unziplora.files import printable
from unziplora.training.events import (
    Drawing,
    Event,
    Finished,
    LorasSaved,
    Message,
    Previewed,
    Started,
    StepDone,
)
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder


def drive(run: Run, model: str) -> int:
    """The exit code: 0, or 130, 143 or 129 where a signal stopped the run. model: as it was named
    on the command line, for the command that resumes."""
    signals, outcome = RunSignals(run), None
    with handled(signals, interrupts=True):
        try:
            with (
                contextlib.closing(_Progress()) as progress,
                contextlib.closing(iter(run)) as events,
            ):
                for event in events:
                    progress.show(event)
                    outcome = event.outcome if isinstance(event, Finished) else None
        except (Ended, KeyboardInterrupt):
            outcome = "stopped"
        except BaseException:
            if not run.training:  # there was nothing to save yet
                raise
            print(_what_is_left(run, model), file=sys.stderr)
            raise
        if outcome in ("completed", "stopped and saved"):
            return 0
        print(_what_is_left(run, model))
    return 128 + (signals.number or signal.SIGINT)


def _what_is_left(run: Run, model: str) -> str:
    """Where the run can be resumed, as the disk says."""
    step = RunFolder(run.kept_in).saved_step(run.info.pair)
    if step is None:
        return "Stopped. No state of this run is saved."
    elsewhere = "" if run.kept_in == run.folder.path else " The run's folder refused its state."
    return (
        f"Stopped. The state of step {step} is saved.{elsewhere} Continue with: "
        f"unziplora train --resume {run.kept_in} --model {model}"
    )


class _Progress:
    """One bar for the steps, and lines above it."""

    def __init__(self) -> None:
        self._bar = tqdm(disable=True)

    def show(self, event: Event) -> None:
        bar = self._bar
        match event:
            case Started():
                bar.write(
                    f"{event.name}: {event.layers} layers of {event.architecture}, {event.memory}"
                )
                self._bar = tqdm(total=event.steps, initial=event.step, unit="step")
            case StepDone():
                bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                bar.update()
            case Drawing():
                bar.set_description(f"drawing previews, {event.number} of {event.count}")
            case Previewed():
                bar.set_description("")
                bar.write(f"previews of step {event.step}: {event.images['both'].parent}")
            case Message():
                bar.set_description("")
                bar.write(printable(event.text), file=sys.stderr)
            case LorasSaved():
                for path in event.files.values():
                    bar.write(str(path))
            case _:
                pass

    def close(self) -> None:
        self._bar.close()
