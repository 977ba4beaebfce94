"""One worker: holds the loaded base and trains one job after another. Both drivers use it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unziplora import files, python_api
from unziplora.batch.base import Sample
from unziplora.batch.finished import check_same, is_finished, is_replaceable
from unziplora.batch.lease import Lease, LeaseLostError, LeaseTakenError, leased
from unziplora.batch.results import Result
from unziplora.errors import Interrupted, InvalidInput, UnZipLoRAError
from unziplora.host import Host
from unziplora.lora.metadata import read_info
from unziplora.lora.pair import pair_files
from unziplora.training.events import Finished, Message, Started, StepDone
from unziplora.training.manifest import BatchJob
from unziplora.training.memory_forecast import is_full, smaller
from unziplora.training.memory_plans import PLANS
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder, run_path


class Worker:
    """open_host: loads the base, once, at the first job. out: where pairs and run folders go.
    sample: draws and scores a finished job's images on the base."""

    def __init__(
        self,
        open_host: Callable[[], Host],
        out: Path,
        name: str,
        sample: Sample | None = None,
    ) -> None:
        self._open_host, self._out, self.name, self._sample = open_host, out, name, sample
        self._host: Host | None = None
        self._run: Run | None = None
        self._plan = ""  # that the current run has taken
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
            folder.make()
            with leased(folder.path) as lease:
                return self._with_samples(job, self._leased(job, folder, lease))
        except (LeaseTakenError, LeaseLostError) as error:
            return Result(job.name, "busy", str(error))
        except InvalidInput as error:  # the same again would be refused again
            return Result(job.name, "refused", str(error))
        except UnZipLoRAError as error:
            return Result(job.name, "failed", str(error))
        except Exception as error:  # one job's fault must not end the others
            _log(folder, traceback.format_exc())
            return Result(job.name, "failed", f"Unexpected error: {type(error).__name__}: {error}")

    def _with_samples(self, job: BatchJob, result: Result) -> Result:
        if self._sample is None or result.state != "completed":
            return result
        try:
            scores = self._sample(self._base(), job, self._stopping.is_set)
        except Interrupted as error:
            return replace(result, state="stopped", message=f"Its pair is complete. {error}")
        return replace(result, scores=scores)

    def _base(self) -> Host:
        if self._host is None:
            self._host = self._open_host()
        return self._host

    def _leased(self, job: BatchJob, folder: RunFolder, lease: Lease) -> Result:
        if folder.exists():
            check_same(job, folder, self._base())
            if is_finished(self._out, job.name, folder):
                return _finished(self._out, job.name)
        plan = self._plan = ""
        while True:
            try:
                return self._drive(job, self._begin(job, folder, plan), lease)
            except Exception as error:
                if not is_full(error):
                    raise
                _log(folder, traceback.format_exc())
                plan = self._next_plan(job, plan)
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
            overwrite=folder.exists() and is_replaceable(self._out, job.name, folder),
        )

    def _drive(self, job: BatchJob, run: Run, lease: Lease) -> Result:
        self._run = run
        if self._stopping.is_set():
            return Result(job.name, "stopped")
        messages: list[str] = []
        memory, result = None, None
        try:
            events = iter(run)
            for event in events:
                if lease.lost:
                    events.throw(LeaseLostError())  # ends it without another save
                if isinstance(event, Started):
                    self._plan = event.plan
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
                        plan=self._plan,
                        files=tuple(path.name for path in event.files.values()),
                    )
        finally:
            self._run = None
        if result is None:
            raise RuntimeError("the run ended without an event")
        return result  # not before: a run that is not read to its end takes that for an accident

    def _next_plan(self, job: BatchJob, tried: str) -> str:
        """The plan after the one that was too large, or nothing. tried: the plan that an earlier
        try set, if any."""
        if self._host is None:
            return ""
        # of a run that ended before it took one, what the manifest says
        used = self._plan or tried or str(job.settings.get("memory", "auto"))
        used = "full" if used == "auto" else used
        step_down = smaller(PLANS[used], self._host.unet, self._host.device)
        return "" if step_down is None else step_down.name


def _finished(out: Path, name: str) -> Result:
    pair = pair_files(out, name)
    return Result(
        name,
        "completed",
        "It was finished before.",
        steps=read_info(pair["content"]).steps or 0,
        files=tuple(path.name for path in pair.values()),
    )


def _log(folder: RunFolder, text: str) -> None:
    try:
        files.make_folder(folder.path)
        folder.note(text)
    except (OSError, UnZipLoRAError):
        pass  # the result says the same in short
