"""What a run reports while it is running, and the commands it obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unziplora.method.prompts import BranchName

Command = Literal["stop", "stop and save", "save now", "preview now"]
Outcome = Literal["completed", "stopped", "stopped and saved"]


@dataclass(frozen=True)
class Started:
    """The model is borrowed and the branches are on it; `step` steps were done before (a resume).

    memory: as "VRAM: about 9.1 GB of 10.4 GB free (plan: checkpoint)".
    """

    name: str
    step: int
    steps: int
    architecture: str
    layers: int
    plan: str
    memory: str = ""


@dataclass(frozen=True)
class StepDone:
    """step: how many are done. loss: without the penalty. orthogonality: eq. 5, before lambda, or
    None where the method has none. open_columns: share of the branch's columns, 0 to 1.
    seconds: of this step. time_left: seconds, or None before it can be known.
    memory_gb: peak so far, in 1e9 bytes, or None where it cannot be measured. leak: of both
    branches, before the penalty's weight, or None in a step without it.
    """

    step: int
    steps: int
    loss: float
    orthogonality: float | None
    lr: float
    open_columns: Mapping[BranchName, float]
    seconds: float
    time_left: float | None
    memory_gb: float | None
    leak: float | None = None


@dataclass(frozen=True)
class Message:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class StateSaved:
    """From here the run can be resumed."""

    step: int


@dataclass(frozen=True)
class Drawing:
    """Previews are being drawn: image `number` of `count`, counted from 1."""

    step: int
    number: int
    count: int


@dataclass(frozen=True)
class GivingWay:
    """The model is with its host, for those who waited for it; the next step comes after them."""

    step: int


@dataclass(frozen=True)
class Previewed:
    """images: by "base", "content", "style" and "both"."""

    step: int
    images: Mapping[str, Path]


@dataclass(frozen=True)
class LorasSaved:
    """The pair's files at a step; a snapshot lies in the run's folder."""

    step: int
    files: Mapping[BranchName, Path]
    snapshot: bool


@dataclass(frozen=True)
class Finished:
    """The model is back with its host."""

    outcome: Outcome
    step: int
    files: Mapping[BranchName, Path]


Event = (
    Started | StepDone | Message | StateSaved | Drawing | GivingWay | Previewed | LorasSaved
    | Finished
)  # fmt: skip
