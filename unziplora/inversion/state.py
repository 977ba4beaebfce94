"""An unfinished inversion on disk, from which it continues exactly: its settings, and of each seed
its vectors, AdamW's moments and the state of its random numbers. OUT/.unziplora/NAME/STATE."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unziplora import files
from unziplora.errors import InvalidInput
from unziplora.images.load import SourceImage
from unziplora.inversion.candidate import Candidate
from unziplora.inversion.settings import InversionSettings
from unziplora.training.run_folder import HIDDEN, LOCK, RunFolder

STATE = "inversion.safetensors"
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError)  # also RecursionError


@dataclass(frozen=True)
class Progress:
    """done: steps, over all seeds. scores: of the seeds that were compared. tensors, scalers: of
    the seeds that were begun (`Candidate.tensors`, `Candidate.scaling`)."""

    pair: str
    model: str
    done: int = 0
    scores: Mapping[int, float] = field(default_factory=dict)
    scalers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    tensors: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)


class InversionState:
    """The file of one inversion; nothing in it is ever unpickled."""

    def __init__(self, out: Path, image: SourceImage, settings: InversionSettings) -> None:
        self.folder = RunFolder(out / HIDDEN / settings.name)
        self.path = self.folder.path / STATE
        pixels = hashlib.sha256(image.image.tobytes()).hexdigest()
        self._chosen = {**asdict(settings), "image": [*image.image.size, pixels]}

    def read(self) -> Progress | None:
        """None where there is none. Raises InvalidInput for one of another image or other
        settings, and for a damaged one."""
        files.check_regular_file(self.path)
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said = json.loads((file.metadata() or {})["unziplora"])
                tensors: dict[int, dict[str, Tensor]] = {}
                for key in file.keys():  # noqa: SIM118
                    seed, name = key.split("/")
                    tensors.setdefault(int(seed), {})[name] = file.get_tensor(key)
            chosen, progress = said["chosen"], said["progress"]
            found = Progress(
                pair=str(progress["pair"]),
                model=str(progress["model"]),
                done=int(progress["done"]),
                scores={int(seed): float(value) for seed, value in progress["scores"].items()},
                scalers={int(seed): dict(value) for seed, value in progress["scalers"].items()},
                tensors=tensors,
            )
        except (SafetensorError, OSError, *_DAMAGE) as error:
            raise self._damaged() from error
        if chosen != json.loads(json.dumps(self._chosen)):
            raise InvalidInput(
                f"{self.path.parent.name} is an unfinished inversion of another image or with "
                "other settings. Give the same to continue it, add --overwrite to begin again, "
                "or choose another name."
            )
        return found

    def restore(self, candidate: Candidate, before: Progress) -> None:
        """A seed as it was, where it was begun. Raises InvalidInput for a damaged state."""
        if candidate.seed in before.tensors:
            scaling = before.scalers.get(candidate.seed, {})
            try:
                candidate.restore(before.tensors[candidate.seed], scaling)
            except _DAMAGE as error:
                raise self._damaged() from error

    def _damaged(self) -> InvalidInput:
        return InvalidInput(
            f"The state of {self.path.parent.name}, an unfinished inversion, is damaged. "
            "Add --overwrite to begin it again."
        )

    def write(self, progress: Progress, candidates: Mapping[int, Candidate]) -> None:
        """progress: without tensors and scalers, which are the candidates'."""
        tensors = {
            f"{seed}/{name}": tensor
            for seed, candidate in candidates.items()
            for name, tensor in candidate.tensors().items()
        }
        said = {
            "chosen": self._chosen,
            "progress": {
                "pair": progress.pair,
                "model": progress.model,
                "done": progress.done,
                "scores": dict(progress.scores),
                "scalers": {seed: c.scaling for seed, c in candidates.items()},
            },
        }
        with files.writing(self.path) as temporary:
            temporary.write_bytes(save(tensors, {"unziplora": json.dumps(said)}))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, and keeps it to this process. Afterwards it is removed where nothing is
        left in it. Raises InvalidInput where another process is at it, and WriteError."""
        self.folder.make()
        try:
            with self.folder.locked():
                self.folder.clear_leftovers()
                yield
        finally:
            if not self.path.exists() and not self.folder.exists():
                with contextlib.suppress(OSError):
                    (self.folder.path / LOCK).unlink(missing_ok=True)
                    self.folder.path.rmdir()
                    self.folder.path.parent.rmdir()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
