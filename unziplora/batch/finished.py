"""What a job's run folder says of it: finished, to be resumed, to begin again, or another's."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from PIL import Image

from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Host
from unziplora.images.load import open_image
from unziplora.lora.inspect import inspect
from unziplora.lora.metadata import read_info
from unziplora.lora.pair import pair_files
from unziplora.training.manifest import BatchJob
from unziplora.training.model_traits import ModelTraits
from unziplora.training.run_folder import RunFolder
from unziplora.training.settings import Settings


def check_same(job: BatchJob, folder: RunFolder, host: Host) -> None:
    """Raises InvalidInput where a run of this name is of another image, other settings or another
    model than the manifest says now. host: the model that the job would be trained on."""
    info = folder.read_info()
    wanted = Settings(**job.settings).resolve(ModelTraits.of(host.unet, host.defaults))
    for field in fields(wanted):
        value, trained = getattr(wanted, field.name), getattr(info.settings, field.name)
        if field.name != "memory" and trained != value:  # a plan may have been too large
            raise _other(job, f"has {field.name} = {trained!r}, the manifest {value!r}")
    if (info.model.sha256 or info.model.name) != (host.model.sha256 or host.model.name):
        raise _other(job, f"was trained on the model {info.model.name}, not {host.model.name}")
    if _is_other_image(folder.image, job.image):
        raise _other(job, f"was trained on another image than {job.image.name} is now")


def _is_other_image(copy: Path, image: Path) -> bool:
    """Whether the pixels trained on are not the file's."""
    try:
        with Image.open(copy, formats=("PNG",)) as opened:
            trained_on = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # no copy, or cut off: nothing to compare
        return False
    now = open_image(image).image
    return trained_on.size != now.size or trained_on.tobytes() != now.tobytes()


def _other(job: BatchJob, what: str) -> InvalidInput:
    return InvalidInput(
        f"The run {job.name} in this folder {what}. Choose another name, or delete the run."
    )


def is_finished(out: Path, name: str, folder: RunFolder) -> bool:
    """Whether a run's two files are there, whole, and its own."""
    if not folder.exists():
        return False  # a pair of this name is somebody else's: the run refuses to replace it
    pair = folder.read_info().pair
    try:
        return all(
            path.is_file() and read_info(path).pair == pair and inspect(path).hash_matches is True
            for path in pair_files(out, name).values()
        )
    except UnZipLoRAError:  # cut off or damaged: trained again
        return False


def is_replaceable(out: Path, name: str, folder: RunFolder) -> bool:
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
