"""`unziplora batch`: a manifest of images over many workers."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.cli.numbers import count
from unziplora.cli.output import print_aligned
from unziplora.cli.packages import check_packages
from unziplora.errors import InvalidInput
from unziplora.files import check_output_folder, printable, write_text

if TYPE_CHECKING:
    from unziplora.batch.base import StandaloneBase
    from unziplora.batch.driver import Workers
    from unziplora.batch.results import Result
    from unziplora.batch.samples import Sampling
    from unziplora.training.manifest import BatchJob

_LOG_SECONDS = 60.0
_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="CSV with a header line, or JSON lines")
    add("--out", default="batch", metavar="DIR|URL", help="where pairs and run folders go")
    add(
        "--workers",
        default="local:1",
        metavar="KIND",
        help="local:N processes (one a GPU, or N on a CPU), ray, ray:N or ray:ADDRESS",
    )
    add("--shard", default="1/1", metavar="I/N", help="only every N-th job, from the I-th")
    add("--retry", type=count, default=0, metavar="N", help="how often a failed job is tried again")
    add(
        "--samples", type=count, default=0, metavar="N", help="draw N images of each condition, too"
    )
    add("--score", action="store_true", help="score them (16 samples unless --samples says more)")
    add("--encoders", default="efficientnet", metavar="LIST", help="as in `unziplora score`")
    add("--steps", type=int, help="for lines without their own")
    add("--rank", type=int, help="likewise")
    add("--resolution", type=int, metavar="PIXELS", help="likewise")
    add("--lr", type=float, help="likewise")
    add("--seed", type=int, help="likewise")
    add("--memory", metavar="PLAN", help="likewise")
    add("--method", help="likewise")


def batch(arguments: argparse.Namespace) -> int:
    """Exit codes as `drive`; 2 for a manifest, a model or workers that cannot be used."""
    from unziplora.batch.upload import Destination
    from unziplora.training.manifest import read_manifest, shard

    defaults = ("steps", "rank", "resolution", "lr", "seed", "memory", "method")
    settings = {name: getattr(arguments, name) for name in defaults}
    jobs = shard(
        read_manifest(arguments.manifest, {k: v for k, v in settings.items() if v is not None}),
        arguments.shard,
    )
    check_packages()
    destination = Destination(arguments.out)
    out = destination.folder
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"The output folder {out} cannot be made ({error.strerror}). Name another with --out."
        ) from error
    check_output_folder(out)
    sampling, measured = _sampling(arguments, _usual_guidance(arguments))
    workers = _workers(arguments, out, sampling)
    stem = results_stem(arguments.shard)
    return drive(
        jobs, workers, out, stem,
        retry=arguments.retry, protocol=measured, show=destination.deliver,
    )  # fmt: skip


def results_stem(shard: str) -> str:
    """Of the names of a shard's results: shards that share a folder do not share these files."""
    number, _, count = shard.partition("/")
    return "batch" if count == "1" else f"batch-{number}-of-{count}"


def drive(
    jobs: Sequence[BatchJob],
    workers: Workers,
    out: Path,
    stem: str = "batch",
    *,
    retry: int = 0,
    protocol: Mapping[str, Any] | None = None,
    show: Callable[[Result], str] = lambda result: (
        f"{result.name}: {result.state}. {result.message}"
    ),
) -> int:
    """Runs jobs to their end, and leaves STEM.jsonl, STEM.md and STEM.png in `out`. protocol: of
    their scores, if any. show: what to print of a result. 0 where every job has its pair, 1 where
    some have not, 130 or 143 where stopped with all states saved."""
    from unziplora.batch.driver import Batch
    from unziplora.batch.results import write_contact_sheet

    line = _Line()
    batch_run = Batch(
        jobs,
        workers,
        out,
        log=out / f"{stem}.jsonl",
        retry=retry,
        protocol=protocol,
        on_progress=line.show,
        on_result=lambda result: line.keep(printable(show(result))),
    )
    try:
        with _stopping(batch_run.stop) as stopped_by:
            results = batch_run.run()
    finally:
        workers.close()
    _write_tables(list(results.values()), out / f"{stem}.md", protocol or {})
    if write_contact_sheet(out / f"{stem}.png", out, list(results.values())):
        line.keep(f"The contact sheet: {out / f'{stem}.png'}")
    if stopped_by:
        print("Stopped; all states are saved. The same command continues.", file=sys.stderr)
        return _EXIT_CODES[stopped_by[0]]
    return 0 if all(result.state == "completed" for result in results.values()) else 1


def _write_tables(results: Sequence[Result], path: Path, protocol: Mapping[str, Any]) -> None:
    """Into the file with each image's scores; on stdout their means, which a terminal has room
    for."""
    from unziplora.batch.results import by_measure, table
    from unziplora.scores.protocol import as_text
    from unziplora.scores.report import table as means

    measured = f"\n{as_text(protocol)}\n" if protocol else ""
    write_text(path, table(results) + measured)
    print(table(results, scores=False) + measured, end="")
    if found := by_measure(results):
        print()
        print_aligned(means({f"mean of {max(map(len, found.values()))}": found}))


def _workers(arguments: argparse.Namespace, out: Path, sampling: Sampling | None) -> Workers:
    """Raises InvalidInput for a kind of workers that is not known."""
    from unziplora.batch.local import LocalWorkers
    from unziplora.batch.ray_driver import RayWorkers

    base = _base(arguments, sampling)
    kind, _, detail = arguments.workers.partition(":")
    count = int(detail) if detail.isdecimal() else None
    if kind == "local" and (count or not detail):
        return LocalWorkers(count or 1, base, out)
    if kind == "ray" and count != 0:
        return RayWorkers(None if count else detail or None, count, base, out)
    raise InvalidInput(
        f"The workers {arguments.workers!r} are not known. Write local:N, ray or ray:ADDRESS."
    )


def _usual_guidance(arguments: argparse.Namespace) -> float:
    """The model's own. Raises InvalidInput for a model that is none."""
    from unziplora import mini
    from unziplora.checkpoints.identify import identify

    path = mini.MODEL if arguments.model == "mini" else arguments.model
    return identify(path, arguments.prediction_type).defaults.usual_guidance


def _base(arguments: argparse.Namespace, sampling: Sampling | None) -> StandaloneBase:
    from unziplora.batch.base import StandaloneBase

    model = arguments.model
    if model != "mini":
        model = str(Path(model).expanduser().absolute())
    vae = None if arguments.vae is None else str(arguments.vae.absolute())
    kind, precision = arguments.prediction_type, arguments.precision
    return StandaloneBase(model, vae, kind, precision, sampling)


def _sampling(
    arguments: argparse.Namespace, guidance: float
) -> tuple[Sampling | None, dict[str, Any]]:
    """What is drawn of each pair, and the protocol of its scores. Raises InvalidInput, before
    anything starts."""
    from unziplora.batch.samples import Sampling
    from unziplora.scores.encoders import absolute_places, open_encoders
    from unziplora.scores.protocol import protocol

    samples = arguments.samples or (16 if arguments.score else 0)
    if samples < 0 or (arguments.score and samples < 2):
        raise InvalidInput(f"{samples} samples cannot be drawn and scored. Choose 2 or more.")
    if not arguments.score:
        return (Sampling(samples, guidance=guidance) if samples else None), {}
    encoders = open_encoders(arguments.encoders)
    sampling = Sampling(samples, absolute_places(arguments.encoders), guidance=guidance)
    return sampling, protocol(
        encoders, str(arguments.model), samples=samples,
        steps=sampling.steps, guidance=sampling.guidance, seed=sampling.seed,
    )  # fmt: skip


@contextmanager
def _stopping(stop: Any) -> Iterator[list[str]]:
    """The first signal lets all runs save and end; its name is in the list then."""
    stopped_by: list[str] = []
    earlier: Mapping[str, Any] = {}

    def handle(number: int, _: object) -> None:
        if not stopped_by:
            stopped_by.append(signal.Signals(number).name)
            print("\nStopping; each run saves its state first.", file=sys.stderr)
            stop()

    names = [name for name in _EXIT_CODES if hasattr(signal, name)]
    earlier = {name: signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield stopped_by
    finally:
        for name, handler in earlier.items():
            signal.signal(getattr(signal, name), handler)


class _Line:
    """Progress on one line of a terminal, or a line a minute in a log; each result on its own."""

    def __init__(self) -> None:
        self._shown = ""
        self._terminal = sys.stderr.isatty()
        self._logged = time.monotonic()

    def show(self, text: str) -> None:
        if self._terminal and text != self._shown:
            print(f"\r{text:<{len(self._shown)}}", end="", file=sys.stderr, flush=True)
            self._shown = text
        elif not self._terminal and time.monotonic() - self._logged > _LOG_SECONDS:
            print(text, file=sys.stderr, flush=True)
            self._logged = time.monotonic()

    def keep(self, text: str) -> None:
        clear = f"\r{'':<{len(self._shown)}}\r" if self._terminal else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)
        self._shown = ""
