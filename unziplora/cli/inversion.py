"""`unziplora train --method inspiration-tree`: two embeddings of an image, in place of LoRAs."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from unziplora.cli.arguments import require
from unziplora.cli.signals import Ended, RunSignals, handled
from unziplora.errors import InvalidInput
from unziplora.files import printable
from unziplora.host import Host
from unziplora.images.load import open_image
from unziplora.inversion.run import (
    EmbeddingsSaved,
    InversionMessage,
    InversionRun,
    InversionStarted,
    InversionStep,
    SeedScored,
)
from unziplora.inversion.settings import DEFAULT_LR, DEFAULT_STEPS, METHOD, InversionSettings
from unziplora.training.settings import Settings

# What trains LoRAs, and means nothing here.
_OTHERS = (
    "token", "rank", "memory", "prompt_combined", "prompt_content", "prompt_style",
    "preview_every", "snapshot_every", "settings", "resume",
)  # fmt: skip
_AGAIN = "The same command continues from there."


def train(arguments: argparse.Namespace, open_host: Callable[[], Host]) -> int:
    """The exit code: 0, or 130, 143 or 129 where a signal stopped it, with its files written where
    something was learned."""
    run = _run(arguments)
    host = open_host()
    signals = RunSignals(run)
    with handled(signals, interrupts=True):
        try:
            saved = _drive(run, host)
        except (Ended, KeyboardInterrupt):
            print(f"Stopped: the files are as they were saved last. {_AGAIN}", file=sys.stderr)
            return 128 + (signals.number or signal.SIGINT)
    if not saved:
        print("Stopped before the first step: nothing was written.", file=sys.stderr)
    elif run.stopped:
        print(f"Stopped. {_AGAIN}", file=sys.stderr)
    return 128 + (signals.number or signal.SIGINT) if run.stopped else 0


def _run(arguments: argparse.Namespace) -> InversionRun:
    for name in _OTHERS:
        if getattr(arguments, name) is not None:
            raise InvalidInput(
                f"The method {METHOD} takes no --{name.replace('_', '-')}. Leave it out."
            )
    require(arguments, "image")
    settings = InversionSettings(
        name=_name(arguments),
        steps=DEFAULT_STEPS if arguments.steps is None else arguments.steps,
        lr=DEFAULT_LR if arguments.lr is None else arguments.lr,
        seed=arguments.seed or 0,
        resolution=arguments.resolution,
    )
    image = open_image(arguments.image, arguments.mask)
    return InversionRun(image, settings, arguments.out, overwrite=arguments.overwrite)


def _name(arguments: argparse.Namespace) -> str:
    """As that of LoRAs: made of the words, where there is no other."""
    if arguments.name is not None:
        return str(arguments.name)
    require(arguments, "subject", "style")
    return Settings(arguments.subject, arguments.style).file_name


def _drive(run: InversionRun, host: Host) -> tuple[Path, ...]:
    """The files, at the end."""
    files: tuple[Path, ...] = ()
    with (
        tqdm(total=run.settings.all_steps, unit="step") as bar,
        contextlib.closing(run.on(host)) as events,
    ):
        for event in events:
            match event:
                case InversionStarted():
                    bar.write(f"{run.settings.name}: {event.steps} steps, {event.memory}")
                case InversionStep():
                    bar.set_description(f"seed {event.seed}", refresh=False)
                    bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                    bar.update()
                case SeedScored():
                    bar.write(f"seed {event.seed}: consistency {event.score:.3f}")
                case InversionMessage():
                    bar.write(printable(event.text), file=sys.stderr)
                case EmbeddingsSaved() if event.final:
                    files = event.files
                    for path in files:
                        bar.write(str(path))
    return files
