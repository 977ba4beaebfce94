"""One worker: holds the loaded base and trains one job after another. Both drivers use it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from unziplora import files, python_api
from unziplora.batch.lease import LeaseTakenError, leased
from unziplora.batch.manifest import BatchJob
from unziplora.batch.results import Result
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Host
from unziplora.lora.inspect import inspect
from unziplora.lora.metadata import read_info
from unziplora.lora.pair import pair_files
from unziplora.training.events import Finished, Message, Started, StepDone
from unziplora.training.memory_forecast import is_full, smaller
from unziplora.training.memory_plans import PLANS
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder, run_path
from unziplora.training.settings import Settings


class Worker:
    """open_host: loads the base, once, at the first job. out: where pairs and run folders go.
    sample: draws and scores a finished job's images on the base: its scores."""

    def __init__(
        self,
        open_host: Callable[[], Host],
        out: Path,
        name: str,
        sample: Callable[[Host, BatchJob], Mapping[str, float]] | None = None,
    ) -> None:
        self._open_host, self._out, self.name, self._sample = open_host, out, name, sample
        self._host: Host | None = None
        self._run: Run | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """The current run saves its state after its step and ends; later jobs do not begin. From
        any thread."""
        self._stopping.set()
        if self._run is not None:
            self._run.send("stop")

    def train(self, job: BatchJob) -> Result:
        """Trains a job to its end, from its saved state where there is one. Never raises: what goes
        wrong is the result's message."""
        began = time.monotonic()
        result = self._train(job)
        return replace(result, seconds=time.monotonic() - began, worker=self.name)

    def _train(self, job: BatchJob) -> Result:
        folder = RunFolder(run_path(self._out, job.name))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with leased(folder.path):
                return self._with_samples(job, self._leased(job, folder))
        except LeaseTakenError as taken:
            return Result(job.name, "busy", f"Another driver has this run ({taken.owner}).")
        except InvalidInput as error:  # the same again would be refused again
            return Result(job.name, "refused", str(error))
        except UnZipLoRAError as error:
            return Result(job.name, "failed", str(error))
        except Exception as error:  # one job's fault must not end the others
            _log(folder, traceback.format_exc())
            return Result(job.name, "failed", f"Unexpected error: {type(error).__name__}: {error}")

    def _with_samples(self, job: BatchJob, result: Result) -> Result:
        if self._sample is None or result.state != "completed" or self._stopping.is_set():
            return result
        return replace(result, scores=self._sample(self._base(), job))

    def _base(self) -> Host:
        if self._host is None:
            self._host = self._open_host()
        return self._host

    def _leased(self, job: BatchJob, folder: RunFolder) -> Result:
        if is_finished(self._out, job, folder):
            return _finished(self._out, job.name)
        plan = ""
        while True:
            try:
                return self._drive(job, self._begin(job, folder, plan))
            except Exception as error:
                if not is_full(error):
                    raise
                _log(folder, traceback.format_exc())
                plan = self._next_plan(folder, plan)
                if not plan:
                    return Result(
                        job.name,
                        "failed",
                        "The memory is full, also with the smallest memory plan. Lower its "
                        "resolution or rank.",
                    )

    def _begin(self, job: BatchJob, folder: RunFolder, plan: str) -> Run:
        host = self._base()
        if folder.has_state:
            if plan:
                info = folder.read_info()
                settings = replace(info.settings, memory=plan)  # type: ignore[arg-type]
                folder.write_info(replace(info, settings=settings))
            return python_api.resume(folder.path, host=host)
        return python_api.train(
            job.image,
            subject=job.settings["subject"],
            style=job.settings["style"],
            host=host,
            settings={**job.settings, **({"memory": plan} if plan else {})},
            out=self._out,
            overwrite=folder.exists() and _is_replaceable(self._out, job.name, folder),
        )

    def _drive(self, job: BatchJob, run: Run) -> Result:
        self._run = run
        if self._stopping.is_set():
            return Result(job.name, "stopped")
        messages: list[str] = []
        plan, memory = "", None
        result = None
        try:
            for event in run:
                if isinstance(event, Started):
                    plan = event.plan
                elif isinstance(event, StepDone):
                    memory = event.memory_gb
                elif isinstance(event, Message):
                    messages.append(event.text)
                elif isinstance(event, Finished):
                    result = Result(
                        job.name,
                        "completed" if event.outcome == "completed" else "stopped",
                        " ".join(messages),
                        steps=event.step,
                        memory_gb=memory,
                        plan=plan,
                        files=tuple(path.name for path in event.files.values()),
                    )
        finally:
            self._run = None
        if result is None:
            raise RuntimeError("the run ended without an event")
        return result  # not before: a run that is not read to its end takes that for an accident

    def _next_plan(self, folder: RunFolder, plan: str) -> str:
        """The plan after the one that was too large, or nothing."""
        host = self._host
        if host is None:
            return ""
        used = plan or (folder.read_info().settings.memory if folder.exists() else "auto")
        if used == "auto":
            used = "full"
        step_down = smaller(PLANS[used], host.unet, host.device)
        return "" if step_down is None else step_down.name


def is_finished(out: Path, job: BatchJob, folder: RunFolder) -> bool:
    """Whether a job's two files are there, whole, and its run's. Raises InvalidInput where a run of
    this name was trained with other settings."""
    if not folder.exists():
        return False  # a pair of this name is somebody else's: the run refuses to replace it
    info = folder.read_info()
    wanted = Settings(**job.settings)
    for name, value in job.settings.items():
        trained = getattr(info.settings, name)
        if name != "memory" and trained != getattr(wanted, name):  # a plan may have been too large
            raise InvalidInput(
                f"The run {job.name} in this folder has {name} = {trained!r}, the manifest "
                f"{value!r}. Choose another name, or delete the run."
            )
    try:
        return all(
            path.is_file()
            and read_info(path).pair == info.pair
            and inspect(path).hash_matches is True
            for path in pair_files(out, job.name).values()
        )
    except UnZipLoRAError:  # cut off or damaged: trained again
        return False


def _is_replaceable(out: Path, name: str, folder: RunFolder) -> bool:
    """Whether a run without a state may begin again: it wrote no file yet, or one of the two is
    known as its own (the other may be cut off)."""
    files = [path for path in pair_files(out, name).values() if path.exists()]
    pair = folder.read_info().pair
    return not files or any(_pair_of(path) == pair for path in files)


def _pair_of(path: Path) -> str | None:
    try:
        return read_info(path).pair
    except UnZipLoRAError:
        return None


def _finished(out: Path, name: str) -> Result:
    pair = pair_files(out, name)
    return Result(
        name,
        "completed",
        "It was finished before.",
        files=tuple(path.name for path in pair.values()),
    )


def _log(folder: RunFolder, text: str) -> None:
    try:
        files.make_folder(folder.path)
        folder.note(text)
    except (OSError, UnZipLoRAError):
        pass  # the result says the same in short
