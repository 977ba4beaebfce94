"""What a page and an API do, in one place: start runs and find them again.

A service belongs to one program (a WebUI, or the app) and knows where its host and its folders are;
page and API are two ways to call it and show the same objects. What lies on the disk is its
library's (app/library.py), what waits and runs its queue's (app/job_queue.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from unziplora import python_api as api
from unziplora.app.bug_report import report
from unziplora.app.job import ENDED, Job
from unziplora.app.job_queue import Jobs
from unziplora.app.merging import Merges, Merging
from unziplora.app.products import Products
from unziplora.app.sheet import Draw
from unziplora.app.uploads import remove_all
from unziplora.errors import InvalidInput
from unziplora.host import Host, ModelIdentity
from unziplora.images.load import open_image
from unziplora.lora.merge_methods import DEFAULT_MU, find_merge_method
from unziplora.lora.pair import Pair, pair_files
from unziplora.training.destination import check_destination
from unziplora.training.events import Finished, LorasSaved, Message, Started, StepDone
from unziplora.training.memory_forecast import Forecast, forecast, smallest
from unziplora.training.model_traits import ModelInfo, ModelTraits
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder, run_path
from unziplora.training.settings import ResolvedSettings, Settings
from unziplora.training.subject_mask import check_mask
from unziplora.ziplora.learn import ZipSettings
from unziplora.ziplora.merging import ZipMerge

_MERGE_SECONDS = 20.0  # that a merge has to write what it learned, when the program ends


class Service(Products):
    """open_host: the program's model, asked for when a run's turn comes. folder, saved, draw,
    publish_to, runs_at: the library's. model_info: the model that a run would get, as far as that
    is known without loading it. defaults: the program's own, for settings that are not given.
    program: what a report says of it. checkpoint: name and family of that model, as far as they are
    known."""

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
        publish_to: Callable[[], Path] | None = None,
        runs_at: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.jobs = Jobs()
        self.jobs.on_event = self._heard
        super().__init__(
            folder, publish_to, saved, draw, self.jobs.reserve_model, self.jobs.busy_names, runs_at
        )
        self.open_host, self._model_info = open_host, model_info
        self.merges = Merges(open_host, self.jobs.reserve_model)
        self._defaults, self._program, self.checkpoint = defaults, program, checkpoint
        self._seconds_per_step: dict[tuple[Any, ...], float] = {}  # of the last run of a kind
        self._forecast_cache: tuple[Any, float, Forecast] | None = None  # for what, when

    def close(self) -> None:
        """When the program ends: what runs saves its state, what was uploaded is removed."""
        self.merges.close(_MERGE_SECONDS)
        self.jobs.close()
        remove_all()

    def start(
        self,
        image: str | Path | bytes,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        start_from: str | None = None,
    ) -> Job:
        """Checks what can be checked at once, and puts the run at the end of the queue, where it
        holds the image's file and not its pixels. start_from: the name of a pair that it trains on.

        Without a name it is made of the words, with a number where that is taken. Raises
        InvalidInput for an image, words or settings that cannot be trained with, and for a given
        name that is taken.
        """
        chosen = settings_of({**self._defaults(), **settings})
        if chosen.name is None and not overwrite:
            chosen = replace(chosen, name=self.free_name(chosen.file_name))
        self.check_not_listed(*pair_files(self.out(), chosen.file_name).values())
        check_mask(chosen.mask_content, open_image(image).mask)
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        out, runs = self.out(), self.runs_at()
        check_destination(chosen, out, overwrite=overwrite, runs=runs)
        if start_from is not None:
            self.pair(start_from)

        def begin() -> Run:
            return api.train(
                data,
                subject=chosen.subject,
                style=chosen.style,
                host=self.open_host(),
                settings=chosen,
                out=out,
                overwrite=overwrite,
                start_from=start_from,
                runs=runs,
            )

        name = chosen.file_name
        folder = run_path(out, name, runs)
        return self.jobs.submit(name, begin, lambda: self._again(folder, out), data, chosen)

    def restart(self, name: str) -> Job:
        """Begins a run of the output folder once more from its first step, with its own settings
        and image. Raises InvalidInput, also where it has no image copy any more."""
        folder = self.run_folder(name)
        info = folder.read_info()
        image = self._training_image(folder)
        if image is None:
            raise InvalidInput(
                f"The run {name} has no copy of its image. Start it from the Train tab instead."
            )
        first = info.started_from.name if info.started_from else None
        values = {**_values(info.settings), "name": name}
        return self.start(image, values, overwrite=True, start_from=first)

    def train_more(self, name: str, steps: int) -> Job:
        """Trains a finished pair for so many steps more, on its own image and with its run's
        settings, into a pair of its own: NAME-more. Raises NotFound, and InvalidInput where its
        run's folder is gone."""
        self.pair(name)
        folder = self.run_folder(name)
        image = self._training_image(folder)
        if image is None:
            raise InvalidInput(
                f"The run of {name} has no copy of its image any more. Choose the image on the "
                "Train tab, and the pair under Start from."
            )
        values = _values(folder.read_info().settings)
        own = {"name": self.free_name(f"{name}-more"), "steps": steps, "recalibrate_every": None}
        return self.start(image, {**values, **own}, start_from=name)

    def _training_image(self, folder: RunFolder) -> bytes | None:
        """Of a run's own copies: a link there may lead to any image of this machine, which would
        be shown on the page. A mask that is one counts as no image: without it the run would be
        another."""
        linked = os.path.lexists(folder.mask) and not self.is_own(folder.mask)
        return None if linked or not self.is_own(folder.image) else folder.training_image()

    def merge_pairs(
        self,
        name: str,
        parts: Sequence[tuple[str, str, float]],
        how: str = "add",
        *,
        mu: float = DEFAULT_MU,
        learning: ZipSettings | None = None,
    ) -> Path:
        """`merge` of (pair, role, weight), in any way; learning: of one that learns, which it does
        on the program's model and in minutes. Raises NotFound, and InvalidInput, also while the
        model is in use."""
        files = [(self.file(pair, role), weight) for pair, role, weight in parts]
        if find_merge_method(how).learns:
            return self.start_merge(name, files, learning).result()
        return self.merge(name, files, how, mu=mu)

    def start_merge(
        self,
        name: str,
        parts: Sequence[tuple[Path, float]],
        learning: ZipSettings | None = None,
    ) -> Merging:
        """ZipLoRA, in a thread of its own. Raises InvalidInput for what cannot be merged, and while
        another one runs."""
        path, image = self.merge_target(name, parts)
        merge = ZipMerge(path, parts, image=image, settings=learning)
        return self.merges.start(merge, lambda made: self.saved({"merged": made}))

    def rename(self, name: str, new: str) -> Pair:
        """`Products.rename`; what the queue knows of it follows."""
        pair = super().rename(name, new)
        self.jobs.renamed(name, pair.name, {str(role): path for role, path in pair.files.items()})
        return pair

    def resume(self, name: str) -> Job:
        """Puts a run that lies in the output folder back into the queue. Raises InvalidInput."""
        for job in self.jobs.all():
            if job.name == name and job.state not in ENDED:
                self.jobs.send(job.id, "resume")
                return job
        folder = self.run_folder(name)
        info = folder.read_info()
        if not folder.has_state:
            raise InvalidInput(
                f"The run {name} has no saved state to resume from. Start it again, or delete it."
            )
        return self.jobs.submit(
            name,
            lambda: self._again(folder.path, folder.out),
            lambda: self._again(folder.path, folder.out),
            settings=info.settings,
        )

    def _again(self, folder: Path, out: Path) -> Run:
        return api.resume(folder, host=self.open_host(), out=out)

    def forecast(self, settings: Mapping[str, Any]) -> tuple[Forecast, float | None] | None:
        """What a run with these settings needs of memory, and its seconds, once a run of its kind
        has ended; None where the model is not known yet. Raises InvalidInput for settings or a
        model that cannot be trained with."""
        model = self._model_info()
        if model is None:
            return None
        words = {"subject": "any", "style": "any"}  # may not be typed yet
        traits = ModelTraits.of(model.unet, model.defaults)
        chosen = settings_of({**settings, **words}).resolve(traits)
        expected = self._forecast(model, chosen)
        kind = _kind(chosen, expected.architecture, expected.plan.name)
        pace = self._seconds_per_step.get(kind)
        return expected, None if pace is None else pace * chosen.steps

    def expected_seconds(self, job: Job) -> float | None:
        """Of a run that waits, by the last one of its kind, whatever its memory plan was; None
        where there was none."""
        known = {kind[1:4]: pace for kind, pace in self._seconds_per_step.items()}
        if not known or job.settings is None:
            return None
        try:
            model = self._model_info()
            traits = None if model is None else ModelTraits.of(model.unet, model.defaults)
            chosen = job.settings.resolve(traits)
        except InvalidInput:  # said when its turn comes
            return None
        pace = known.get((chosen.method, chosen.resolution, chosen.rank))
        return None if pace is None else pace * (chosen.steps - job.step)

    def model_defaults(self, method: str = "unziplora") -> dict[str, Any]:
        """Steps, learning rate, rank and resolution of a run whose settings name none: the loaded
        model's, or the paper's while no model is known. architecture: what the model says it is,
        or None."""
        try:
            model = self._model_info()
        except InvalidInput:  # it cannot be trained on, which `forecast` says
            model = None
        traits = ModelTraits()
        if model is not None:
            traits = ModelTraits.of(model.unet, model.defaults)
        resolved = Settings("any", "any", method=method).resolve(traits)
        values = {n: getattr(resolved, n) for n in ("steps", "lr", "rank", "resolution")}
        return {**values, "architecture": traits.defaults.architecture}

    def _forecast(self, model: ModelInfo, chosen: ResolvedSettings) -> Forecast:
        """Asked again for the same only after a while: a page asks all the time, and SDXL's UNet
        takes 0.2 s to count."""
        wanted, now = (id(model.unet), model.device, model.freed, chosen), time.monotonic()
        if (
            self._forecast_cache is None
            or self._forecast_cache[0] != wanted
            or now > self._forecast_cache[1] + 10
        ):
            stated = model.defaults.architecture
            expected = forecast(model.unet, model.device, chosen, stated, model.freed)
            self._forecast_cache = wanted, now, expected
        return self._forecast_cache[2]

    def smallest_plan(self) -> str:
        """The memory plan that needs least of those that the model can run; "auto" where it is not
        known yet."""
        model = self._model_info()
        return "auto" if model is None else smallest(model.unet, model.device).name

    def report(self, job_id: str | None = None) -> str:
        """For a bug report: of the program, and of a run where one is named. Raises NotFound for an
        id that is not known."""
        names = [job.name for job in self.jobs.all()]
        if job_id is None:
            return report(self._program(), None, names=names)
        job = self.jobs.get(job_id)
        messages = [
            event.memory if isinstance(event, Started) else event.text
            for _, event in job.events()
            if isinstance(event, (Started, Message))
        ]
        messages += [f"state: {job.state}, step {job.step} of {job.steps}", job.error or ""]
        folder = self.run_folder(job.name)
        return report(self._program(), folder, [*messages, job.trace or ""], names)

    def _heard(self, event: Any) -> None:
        if isinstance(event, LorasSaved) and not event.snapshot:
            self.saved({str(role): path for role, path in event.files.items()})
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


def _values(settings: Settings) -> dict[str, Any]:
    """By name, those that are chosen for a run."""
    return {field.name: getattr(settings, field.name) for field in fields(Settings)}


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Raises InvalidInput for names that are no settings, and for values that make no sense."""
    known = {field.name for field in fields(Settings)}
    for name in values:
        if name not in known:
            shown = "".join(c if c.isprintable() else "?" for c in str(name)[:50])
            raise InvalidInput(
                f"Unknown setting {shown!r}. `unziplora train --help` and /docs list all of them."
            )
    words = {"subject": "", "style": ""}  # refused by name where they are missing
    return Settings(**{**words, **{k: v for k, v in values.items() if v is not None}})


def _kind(settings: ResolvedSettings, architecture: str, plan: str) -> tuple[Any, ...]:
    """Runs of one kind take equally long a step."""
    return architecture, settings.method, settings.resolution, settings.rank, plan
