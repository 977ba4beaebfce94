"""Previews of a run: what the model makes alone, with each LoRA, and with both, on one seed."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unziplora.errors import Interrupted, InvalidInput
from unziplora.files import make_folder, writing
from unziplora.host import Host
from unziplora.images.infotext import KEY, save_png, with_loras
from unziplora.method.prompts import BranchName
from unziplora.training.commands import Commands
from unziplora.training.events import Drawing, Event, Previewed
from unziplora.training.run_writer import RunWriter
from unziplora.training.settings import ResolvedSettings
from unziplora.training.trainer import Trainer

_Weights = Mapping[BranchName, float]


@dataclass(frozen=True)
class Previews:
    """Draws into the run's folder. commands: a run that is asked to stop draws no further."""

    host: Host
    writer: RunWriter
    commands: Commands

    def draw(self, trainer: Trainer) -> Iterator[Event]:
        """Whatever goes wrong with a preview, the run continues without it."""
        images: dict[str, Path] = {}
        wanted = self._wanted()
        try:
            make_folder(self.writer.folder.previews)
            for number, (name, (prompt, weights)) in enumerate(wanted.items(), 1):
                if self.commands.stopping:
                    return
                yield Drawing(trainer.step, number, len(wanted))
                images[name] = self._draw(trainer, name, prompt, weights)
        except Interrupted:
            return
        except Exception as error:  # the border to the host's own sampler
            if self.commands.stopping:
                return
            self.writer.log(traceback.format_exc())
            yield self.writer.say(f"The preview failed ({error}). Training continues without it.")
            return
        yield Previewed(trainer.step, images)

    def _wanted(self) -> dict[str, tuple[str, _Weights]]:
        prompts, own = self.writer.settings.prompts, self.writer.settings.preview_prompt
        return {
            "base": (own or prompts.combined, {}),
            "content": (own or prompts.content, {"content": 1.0}),
            "style": (own or prompts.style, {"style": 1.0}),
            "both": (own or prompts.combined, {"content": 1.0, "style": 1.0}),
        }

    def _draw(self, trainer: Trainer, name: str, prompt: str, weights: _Weights) -> Path:
        settings = self.writer.settings
        trainer.attachment.mode.use_weights(weights)
        with torch.no_grad():
            drawn = self.host.preview(
                prompt,
                negative=settings.preview_negative,
                size=_size(settings),
                steps=settings.preview_steps,
                seed=settings.seed,
                **self._chosen(),
            )
        if KEY in drawn.info:  # as it can be drawn again, from the files
            calls = [(f"{settings.name}_{branch}", weight) for branch, weight in weights.items()]
            drawn.info[KEY] = with_loras(drawn.info[KEY], calls)
        path = self.writer.folder.previews / f"{trainer.step:06d}_{name}.png"
        with writing(path) as temporary:
            save_png(drawn, temporary)
        return path

    def _chosen(self) -> dict[str, Any]:
        """What a host's `preview` is passed only where the user chose it, or the model's maker its
        guidance. Raises InvalidInput for a host that leaves the user no choice."""
        settings = self.writer.settings
        values = {"sampler": settings.preview_sampler, "guidance": settings.preview_guidance}
        chosen = {name: value for name, value in values.items() if value not in ("", None)}
        known = inspect.signature(self.host.preview).parameters.keys()
        if chosen.keys() - known:
            raise InvalidInput(
                "This program has one sampler and guidance for previews. Leave both empty."
            )
        models_own = self.host.defaults.guidance
        if "guidance" in known and models_own is not None:
            chosen.setdefault("guidance", models_own)
        return chosen


def _size(settings: ResolvedSettings) -> tuple[int, int]:
    """Height and width in whole latents."""
    wanted = (settings.preview_height, settings.preview_width)
    height, width = (8 * round((side or settings.resolution) / 8) for side in wanted)
    return height, width
