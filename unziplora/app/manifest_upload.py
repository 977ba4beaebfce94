"""A manifest that was uploaded with its images: all of its runs go into the queue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unziplora.app.service import Service
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.images.load import open_image
from unziplora.training.destination import check_destination
from unziplora.training.manifest import BatchJob, manifest_bytes, parse_manifest
from unziplora.training.settings import Settings

ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")


def queue_manifest(service: Service, uploaded: Sequence[Path]) -> str:
    """Checks everything, then queues every run; says how many. uploaded: one manifest and the
    images that it names. No other file of this machine is looked at: who uploads may sit elsewhere.

    Raises InvalidInput with every fault of the manifest or its images, before anything is queued;
    and where a run could not be queued, with how many were.
    """
    lists = [path for path in uploaded if path.suffix.lower() in ENDINGS]
    if len(lists) != 1:
        raise InvalidInput(
            f"There are {len(lists)} lists (.csv or .jsonl) among the files. Choose one list "
            "together with its images."
        )
    images = {_plain(path.name): path for path in uploaded if path not in lists}

    def find(image: str) -> Path | None:
        return images.get(_plain(image.replace("\\", "/").rpartition("/")[2]))

    jobs = parse_manifest(manifest_bytes(lists[0]), lists[0].name, find, {})
    for job in jobs:
        open_image(job.image)
        if "name" in job.settings:  # else one that is free is taken
            check_destination(Settings(**job.settings), service.out(), overwrite=False)
    for number, job in enumerate(jobs):
        _queue(service, job, number, len(jobs))
    return f"{len(jobs)} runs are in the queue."


def _queue(service: Service, job: BatchJob, before: int, count: int) -> None:
    try:
        service.start(job.image.read_bytes(), job.settings)
    except UnZipLoRAError as error:
        raise InvalidInput(
            f"{before} of {count} runs are in the queue. Line {job.line} is not: {error}"
        ) from error


def _plain(name: str) -> str:
    """A file's name as far as every browser and gradio keep it."""
    return re.sub(r"[\W_]", "", name.casefold())
