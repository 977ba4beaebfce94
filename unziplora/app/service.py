"""What a page and an API do, in one place: start runs, find them again, list the pairs.

A service belongs to one program (a WebUI, or the app) and knows where its host and its folders are;
page and API are two ways to call it and show the same objects.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import nn

from unziplora import files as atomic
from unziplora import python_api as api
from unziplora.app.bug_report import report
from unziplora.app.job_queue import ENDED, Job, Jobs
from unziplora.app.sheet import Draw, sheet, words_of
from unziplora.errors import InvalidInput, WriteError
from unziplora.host import Defaults, Host, ModelIdentity
from unziplora.images.load import open_image
from unziplora.lora.merge import merge
from unziplora.lora.pair import Pair, find_pair, find_pairs, pair_files
from unziplora.lora.publish import publish
from unziplora.training.events import Finished, LorasSaved, Message, Started, StepDone
from unziplora.training.memory_forecast import Forecast, forecast, smallest
from unziplora.training.run import Run, check_destination, with_model_defaults
from unziplora.training.run_folder import RunFolder, list_runs, run_path
from unziplora.training.settings import PAPER_RANK, Settings

# A model's UNet (on the meta device, where it is not loaded yet), its device and what suits it
ModelInfo = tuple[nn.Module, torch.device, Defaults]


class Service:
    """open_host: the program's model, asked for when a run's turn comes. folder: where pairs and
    runs go, asked for anew each time, because it may be an option. saved: told of every pair, so
    that a WebUI can refresh its list. draw: makes images for sheets, where the program can.
    model_info: the model that a run would get, as far as that is known without loading it.
    defaults: the program's own, for settings that are not given. program: what a report says of
    it. checkpoint: name and family of that model, as far as they are known."""

    def __init__(
        self,
        open_host: Callable[[], Host],
        folder: Callable[[], Path],
        saved: Callable[[Mapping[str, Path]], None] = lambda files: None,
        draw: Draw | None = None,
        model_info: Callable[[], ModelInfo | None] = lambda: None,
        defaults: Callable[[], Mapping[str, Any]] = dict,
        program: Callable[[], Mapping[str, str]] = lambda: {"program": "unziplora app"},
        checkpoint: Callable[[], ModelIdentity | None] = lambda: None,
    ) -> None:
        self.open_host, self.folder, self._saved = open_host, folder, saved
        self.draw, self._model_info, self._defaults = draw, model_info, defaults
        self._program, self.checkpoint = program, checkpoint
        self._seconds_per_step: dict[tuple[Any, ...], float] = {}  # of the last run of a kind
        self._forecast_cache: tuple[Any, float, Forecast] | None = None  # for what, when
        self.jobs = Jobs()
        self.jobs.on_event = self._heard

    def start(
        self, image: str | Path | bytes, settings: Mapping[str, Any], *, overwrite: bool = False
    ) -> Job:
        """Checks what can be checked at once, and puts the run at the end of the queue.

        Without a name it is made of the words, with a number where that is taken. Raises
        InvalidInput for an image, words or settings that cannot be trained with, and for a given
        name that is taken.
        """
        chosen = _settings({**self._defaults(), **settings})
        if chosen.name is None and not overwrite:
            chosen = replace(chosen, name=self._free_name(chosen.chosen_name))
        opened = open_image(image)
        out = self._out()
        check_destination(chosen, out, overwrite=overwrite)

        def begin() -> Any:
            return api.train(
                opened,
                subject=chosen.subject,
                style=chosen.style,
                host=self.open_host(),
                settings=chosen,
                out=out,
                overwrite=overwrite,
            )

        name = chosen.chosen_name
        return self.jobs.submit(name, begin, lambda: self._again(run_path(out, name)))

    def forecast(self, settings: Mapping[str, Any]) -> tuple[Forecast, float | None] | None:
        """What a run with these settings needs of memory, and its seconds, once a run of its kind
        has ended; None where the model is not known yet. Raises InvalidInput for settings or a
        model that cannot be trained with."""
        model = self._model_info()
        if model is None:
            return None
        unet, device, defaults = model
        words = {"subject": "any", "style": "any"}  # may not be typed yet
        chosen = with_model_defaults(_settings({**settings, **words}), unet, defaults)
        expected = self._forecast(unet, device, chosen)
        pace = self._seconds_per_step.get(_kind(chosen, expected.architecture, expected.plan.name))
        return expected, None if pace is None else pace * chosen.total_steps

    def model_defaults(self, method: str = "unziplora") -> dict[str, Any]:
        """Steps, learning rate, rank and resolution of a run whose settings name none: the loaded
        model's, or the paper's while no model is known."""
        chosen = Settings("any", "any", method=method)
        try:
            model = self._model_info()
        except InvalidInput:  # it cannot be trained on, which `forecast` says
            model = None
        if model is not None:
            chosen = with_model_defaults(chosen, model[0], model[2])
        return {
            "steps": chosen.total_steps,
            "lr": chosen.chosen_lr,
            "rank": chosen.rank or PAPER_RANK,
            "resolution": chosen.resolution or Defaults().resolution,
        }

    def _forecast(self, unet: nn.Module, device: torch.device, chosen: Settings) -> Forecast:
        """Asked again for the same only after a while: a page asks all the time, and SDXL's UNet
        takes 0.2 s to count."""
        asked, now = (id(unet), device, chosen), time.monotonic()
        if (
            self._forecast_cache is None
            or self._forecast_cache[0] != asked
            or now > self._forecast_cache[1] + 10
        ):
            self._forecast_cache = asked, now, forecast(unet, device, chosen)
        return self._forecast_cache[2]

    def smallest_plan(self) -> str:
        """The memory plan that needs least of those that the model can run; "auto" where it is not
        known yet."""
        model = self._model_info()
        return "auto" if model is None else smallest(model[0], model[1]).name

    def _free_name(self, words: str) -> str:
        """The words, or words-2, words-3, ..."""
        folder = self.folder()
        busy = {job.name for job in self.jobs.all() if job.state not in ENDED}

        def taken(name: str) -> bool:
            there = (run_path(folder, name), *pair_files(folder, name).values())
            return name in busy or any(os.path.lexists(path) for path in there)

        numbered = (f"{words}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([words], numbered) if not taken(name))

    def resume(self, name: str) -> Job:
        """Puts a run that lies in the output folder back into the queue. Raises InvalidInput."""
        for job in self.jobs.all():
            if job.name == name and job.state not in ENDED:
                self.jobs.send(job.id, "resume")
                return job
        folder = self.run_folder(name)
        folder.read_info()
        if not folder.has_state:
            raise InvalidInput(
                f"The run {name} has no saved state to go on from. Start it anew, and overwrite it."
            )

        def begin() -> Any:
            return self._again(folder.path)

        return self.jobs.submit(name, begin, begin)

    def _again(self, folder: Path) -> Any:
        return api.resume(folder, host=self.open_host())

    def resumable(self) -> list[str]:
        """Names of runs in the output folder that have a state and are not in the queue."""
        busy = {job.name for job in self.jobs.all() if job.state not in ENDED}
        runs = list_runs(self.folder())
        return [run.name for run in runs if run.has_state and run.name not in busy]

    def delete_run(self, name: str) -> None:
        """Removes what a run that has ended left in its folder; files of others stay there. Raises
        InvalidInput where there is no such run, or it has not ended."""
        if any(job.name == name and job.state not in ENDED for job in self.jobs.all()):
            raise InvalidInput(f"The run {name} has not ended. Stop it first.")
        folder = self.run_folder(name)
        if not folder.exists():
            raise InvalidInput(f"There is no run named {name}. It may be deleted already.")
        with folder.locked(), _removing(name):
            folder.clear()

    def pairs(self) -> list[Pair]:
        """The pairs in the output folder, the newest first."""
        return find_pairs(self.folder())

    def pair(self, name: str) -> Pair:
        """Raises InvalidInput where there is none of this name."""
        pair = find_pair(self.folder(), name)
        if pair is None:
            raise InvalidInput(
                f"There is no pair named {name!r} in the output folder. Choose one of the list."
            )
        return pair

    def delete(self, name: str) -> list[str]:
        """Removes a pair: its two files and what lies beside them under their names; the run's
        folder stays. Gives the removed names back."""
        pair = self.pair(name)
        removed = []
        for path in pair.all_files():
            with _removing(path.name):
                path.unlink(missing_ok=True)
            removed.append(path.name)
        return removed

    def merge(self, name: str, parts: Sequence[tuple[Path, float]]) -> Path:
        """NAME.safetensors in the output folder, which adds up the parts. Raises InvalidInput."""
        atomic.check_name(name)
        path = self._out() / f"{name}.safetensors"
        merge(path, parts)
        self._saved({"merged": path})
        return path

    def publish(self, name: str) -> Path:
        """The folder NAME-to-share in the output folder, with the run's last previews. Raises
        InvalidInput."""
        pair = self.pair(name)
        images: dict[str, Path] = {}
        for what in ("content", "style", "both"):
            made = sorted(self.run_folder(name).previews.glob(f"*_{what}.png"))
            beside = self.folder() / f"{name}_{what}.png"
            if made or beside.is_file():
                images[what] = made[-1] if made else beside
        files = {"content": pair.content, "style": pair.style}
        return publish(self.folder() / f"{name}-to-share", files, images)

    def sheet(
        self, content: str, style: str, weights: tuple[float, float] = (1.0, 1.0), seed: int = 0
    ) -> Image.Image:
        """The figure of the content of one pair with the style of another or the same. Raises
        InvalidInput where there are no such pairs, nothing to draw with, or the model is in use."""
        if self.draw is None:
            raise InvalidInput("This program cannot make sheets. Use `unziplora sheet`.")
        one, other = self.pair(content), self.pair(style)
        copy = self.run_folder(content).image
        with self.jobs.reserve_model():
            return sheet(
                self.draw,
                one.content,
                other.style,
                words_of(one.content, other.style),
                image=open_image(copy).image if copy.is_file() else None,
                weights=(weights,),
                seed=seed,
            )

    def report(self, job_id: str | None = None) -> str:
        """For a bug report: of the program, and of a run where one is named. Raises InvalidInput
        for an id that is not known."""
        if job_id is None:
            return report(self._program(), None)
        job = self.jobs.get(job_id)
        told = [
            event.memory if isinstance(event, Started) else event.text
            for _, event in job.events()
            if isinstance(event, (Started, Message))
        ]
        told += [f"state: {job.state}, step {job.step} of {job.steps}", job.error or ""]
        return report(self._program(), self.run_folder(job.name), [*told, job.trace or ""])

    def run_folder(self, name: str) -> RunFolder:
        """Raises InvalidInput for a name that would leave the output folder."""
        if not name or Path(name).name != name or name in (".", ".."):
            raise InvalidInput(
                "A run's name is that of its folder, without any path. Leave that out."
            )
        return RunFolder(run_path(self.folder(), name))

    def _out(self) -> Path:
        out = self.folder()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"The output folder cannot be made ({error.strerror}). Choose another in the "
                "settings."
            ) from error
        return out

    def _heard(self, event: Any) -> None:
        if isinstance(event, LorasSaved) and not event.snapshot:
            self._saved({str(role): path for role, path in event.files.items()})
        job = self.jobs.current
        if isinstance(event, Finished) and job is not None and job.run is not None:
            self._learn_pace(job, job.run)

    def _learn_pace(self, job: Job, run: Run) -> None:
        plan = ""
        seconds: list[float] = []
        for _, event in job.events():
            if isinstance(event, Started):
                plan, seconds = event.plan, []
            elif isinstance(event, StepDone):
                seconds.append(event.seconds)
        if seconds:
            kind = _kind(run.settings, run.info.architecture, plan)
            self._seconds_per_step[kind] = median(seconds)


def _kind(settings: Settings, architecture: str, plan: str) -> tuple[Any, ...]:
    """Runs of one kind take equally long a step."""
    return architecture, settings.method, settings.resolution, settings.rank, plan


@contextlib.contextmanager
def _removing(name: str) -> Iterator[None]:
    """Raises WriteError where the system refuses to remove something."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{name} could not be removed ({error.strerror}). Close the programs that have it "
            "open, and allow writing to its folder."
        ) from error


def _settings(given: Mapping[str, Any]) -> Settings:
    """Raises InvalidInput for fields that are no settings or have no sensible value."""
    return Settings.from_json(json.dumps({k: v for k, v in given.items() if v is not None}))
