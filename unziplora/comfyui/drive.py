"""Drives a run from a node: its progress, previews and messages in the page, and Cancel."""

from __future__ import annotations

import contextlib
import importlib
import logging
from pathlib import Path
from typing import Any

from PIL import Image

from unziplora.comfyui.finished import note
from unziplora.hosts.comfyui.host import ComfyHost
from unziplora.hosts.comfyui.program import comfy
from unziplora.training.events import (
    Drawing,
    Event,
    Finished,
    Message,
    Previewed,
    Started,
    StateSaved,
    StepDone,
)
from unziplora.training.run import Run

_log = logging.getLogger(__name__)
_PREVIEW_SIDE = 512  # pixels


def drive(run: Run, host: ComfyHost, node: str | None, key: str) -> Finished:
    """Trains to the end. node: the id of the node that shows it; key: what the run is found by
    again (finished.py).

    Raises ComfyUI's InterruptProcessingException where the user pressed Cancel; the state is saved
    then.
    """
    shown, finished = _Shown(node), None
    with contextlib.closing(iter(run)) as events:
        for event in events:
            if isinstance(event, Started):
                note(run.folder, key)
            shown.show(event)
            if shown.cancelled or host.cancelled:
                run.send("stop")
            if isinstance(event, Finished):
                finished = event
    if finished is None or finished.outcome != "completed":
        _log.info("UnZipLoRA: %s is stopped. Queue it again to continue it.", run.settings.name)
        raise comfy("model_management").InterruptProcessingException()
    return finished


class _Shown:
    """What the node shows. `cancelled`: whether the user pressed Cancel."""

    def __init__(self, node: str | None) -> None:
        self.cancelled = False
        self._node, self._steps, self._step = node, 0, 0
        self._bar: Any = None

    def show(self, event: Event) -> None:
        match event:
            case Started():
                self._steps, self._step = event.steps, event.step
                self._bar = comfy("utils").ProgressBar(event.steps, node_id=self._node)
                self._say(f"{event.layers} layers of {event.architecture}. {event.memory}")
                self._progress()
            case StepDone():
                self._step = event.step
                self._progress()
                self._text(_line(event))
            case Drawing():
                self._progress()
                self._text(f"drawing previews, {event.number} of {event.count}")
            case Previewed():
                self._progress(event.images["both"])
            case Message():
                self._say(event.text)
            case Finished(outcome="completed"):
                names = ", ".join(path.name for path in event.files.values())
                self._say(f"finished: {names}")
            case StateSaved():
                _log.info("UnZipLoRA: the state of step %d is saved.", event.step)
            case _:
                pass

    def _progress(self, image: Path | None = None) -> None:
        """ComfyUI raises here after Cancel (main.py:291), and forgets that it was pressed."""
        interrupted = comfy("model_management").InterruptProcessingException
        try:
            preview = None if image is None else ("JPEG", _opened(image), _PREVIEW_SIDE)
            self._bar.update_absolute(self._step, self._steps, preview)
        except interrupted:
            self.cancelled = True

    def _say(self, text: str) -> None:
        _log.info("UnZipLoRA: %s", text)
        self._text(text)

    def _text(self, text: str) -> None:
        server = importlib.import_module("server").PromptServer.instance
        if self._node is not None and hasattr(server, "send_progress_text"):
            server.send_progress_text(text, self._node)


def _line(event: StepDone) -> str:
    left = "" if event.time_left is None else f", {_duration(event.time_left)} left"
    return f"step {event.step} of {event.steps}, loss {event.loss:.4f}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def _opened(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
