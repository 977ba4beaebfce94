"""A ZipLoRA merge from two files to one: checked first, learned on a model, written."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from unziplora.errors import InvalidInput
from unziplora.host import Host
from unziplora.lora.merge import check_mergeable, merge
from unziplora.lora.merge_methods import find_merge_method
from unziplora.lora.metadata import LoraInfo
from unziplora.lora.write import SavedLora
from unziplora.method.prompts import BRANCHES, BranchName, with_article
from unziplora.training.events import Command
from unziplora.ziplora.learn import MergeEvent, MergeMessage, ZipLora, ZipSettings

METHOD = "zip"


class ZipMerge:
    """parts: a content and a style with their weights. prompts: what to call each with, in place of
    what its header says. image: for the card.

    Iterated by `on`, once; `saved` is the file, or None where it was stopped before its first step.
    Raises InvalidInput for what cannot be merged, before a model is opened.
    """

    def __init__(
        self,
        path: Path,
        parts: Sequence[tuple[Path, float]],
        *,
        prompts: Mapping[BranchName, str | None] | None = None,
        settings: ZipSettings | None = None,
        image: Image.Image | None = None,
    ) -> None:
        self.path, self._parts, self._image = path, list(parts), image
        self.settings = settings or ZipSettings()
        self._files = check_mergeable(path, self._parts, find_merge_method(METHOD))
        self._prompts: dict[BranchName, str] = {
            role: _prompt(role, file.path.name, file.info, (prompts or {}).get(role))
            for role, (file, _) in zip(BRANCHES, self._files, strict=True)
        }
        self.saved: SavedLora | None = None
        self._learning: ZipLora | None = None
        self._stop = False

    @property
    def training(self) -> bool:
        """Whether the steps have begun, after which a stop writes what was learned."""
        return self._learning is not None and self._learning.training

    @property
    def interruptible(self) -> bool:
        """An exception loses what was learned, and nothing else."""
        return True

    @property
    def stopped(self) -> bool:
        """Whether it ended before its last step."""
        return self._learning is None or self._learning.stopped

    def send(self, command: Command) -> None:
        """Ends it after its step; from any thread."""
        self._stop = True
        if self._learning is not None:
            self._learning.send(command)

    def on(self, host: Host) -> Generator[MergeEvent, None, None]:
        """Learns on the host's model, and writes the file. Raises InvalidInput for files that do
        not fit the model."""
        learning = ZipLora(host, self._files, self._prompts, self.settings)
        self._learning = learning
        if self._stop:
            learning.send("stop")
        with contextlib.closing(iter(learning)) as events:
            yield from events
        if not learning.step:
            return
        self.saved = merge(
            self.path, self._parts, self._image, how=METHOD, learned=learning.learned()
        )
        if learning.stopped:
            yield MergeMessage(
                f"Stopped: {self.path.name} has the mergers of step {learning.step} of "
                f"{self.settings.steps}."
            )


def _prompt(role: BranchName, name: str, info: LoraInfo, given: str | None) -> str:
    """What calls a file: as it was trained, or made of its trigger words."""
    known = given or info.prompts.get(role)
    if known:
        return known
    if not info.trigger:
        raise InvalidInput(
            f"{name} does not say which words call it in a prompt. Name a prompt that does with "
            f"--{role}-prompt."
        )
    return with_article(info.trigger) if role == "content" else f"an image in {info.trigger}"
