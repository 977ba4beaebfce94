"""A run is killed (SIGKILL) again and again, in the middle of every write in turn and at random
moments, and resumed until it ends. It must end with the tensors of an undisturbed run, nothing
partial may ever lie among the LoRA files, and no more may be repeated than what was not saved."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.reliability.killed import MOMENTS, train
from benchmarks.results import pair_hashes
from unziplora.errors import InvalidInput
from unziplora.lora.inspect import inspect
from unziplora.training.run_folder import HIDDEN, RunFolder, run_path

KILLS_A_RUN = (4, 9)


@dataclass
class Result:
    """in_writes: kills at a chosen moment of a chosen write; the rest came at any time."""

    kills: int = 0
    in_writes: int = 0
    leftovers: int = 0  # kills after which a temporary file lay there
    runs: int = 0
    most_repeated: int = 0  # steps, after a kill; every step is saved
    findings: list[str] = field(default_factory=list)


class Killer:
    """Runs, each killed some times, in processes forked from one that has everything loaded."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.result = Result()
        self._folder, self._random = folder, Random(seed)
        self._server: Any = get_context("forkserver")
        self._server.set_forkserver_preload(["benchmarks.reliability.killed"])
        undisturbed = folder / "undisturbed"
        self._ended(undisturbed)  # starts the server too
        began = time.monotonic()
        self._ended(folder / "timed")
        self._seconds = time.monotonic() - began
        self._expected = pair_hashes(undisturbed)
        self._writes = int((folder / "undisturbed.writes").read_text(encoding="utf-8"))

    def kill_runs(self, kills: int) -> None:
        """Until there were so many. The first kill of each run is in the next write in turn."""
        random, result = self._random, self.result
        while result.kills < kills:
            out = self._folder / f"run{result.runs}"
            first = result.runs % self._writes + 1, MOMENTS[result.runs % 3]
            result.runs += 1
            self._killed(out, first)
            for _ in range(min(random.randint(*KILLS_A_RUN), kills - result.kills)):
                in_write = random.random() < 0.5
                at = random.randint(1, 8), random.choice(MOMENTS)
                if not self._killed(out, at if in_write else None):
                    break
            self._ended(out)
            found = pair_hashes(out)
            if found != self._expected:
                result.findings.append(f"{out.name}: {found} instead of {self._expected}")
            if left := [path.name for path in out.rglob(".*") if path.name != HIDDEN]:
                result.findings.append(f"{out.name}: {left} were left")

    def _killed(self, out: Path, at: tuple[int, str] | None) -> bool:
        """One process, killed; False where it ended before that."""
        process = self._server.Process(target=train, args=(out, at))
        process.start()
        process.join(None if at else self._random.uniform(0, self._seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            self._failed(out, process.exitcode)
            return False
        self.result.kills += 1
        self.result.in_writes += at is not None
        self.result.leftovers += bool(list(out.rglob(".*.tmp")))
        self._look(out)
        return True

    def _ended(self, out: Path) -> None:
        process = self._server.Process(target=train, args=(out,))
        process.start()
        process.join()
        self._failed(out, process.exitcode)

    def _failed(self, out: Path, code: int) -> None:
        if code:
            self.result.findings.append(f"{out.name}: a process ended with {code}")

    def _look(self, out: Path) -> None:
        """Every file that has its name is whole, and hardly a step is lost."""
        result = self.result
        result.findings += [f"{out.name}: {fault}" for fault in damaged_files(out)]
        folder = RunFolder(run_path(out, "pair"))
        saved = 0
        if folder.state.exists():
            try:
                pair = folder.read_info().pair
                saved = int(folder.read_state(pair)[1]["step"])
            except InvalidInput as error:
                result.findings.append(f"{out.name}: {error}")
        elif (out / "pair_style.safetensors").exists():
            return
        repeated = _steps_done(out) - saved
        result.most_repeated = max(result.most_repeated, repeated)
        if repeated > 1:
            result.findings.append(f"{out.name}: {repeated} steps are lost")


def damaged_files(out: Path) -> list[str]:
    """What is wrong with the LoRA files that have their names."""
    found = []
    for path in out.rglob("pair*.safetensors"):
        try:
            if inspect(path).hash_matches is not True:
                found.append(f"{path.name} is not what its hash says")
        except InvalidInput as error:
            found.append(str(error))
    return found


def run(kills: int, folder: Path, seed: int = 0) -> Result:
    """Kills until there were so many, in runs of eight steps on the small host."""
    killer = Killer(folder, seed)
    killer.kill_runs(kills)
    return killer.result


def _steps_done(out: Path) -> int:
    steps = out.with_name(out.name + ".steps")
    return int(steps.read_text(encoding="utf-8").split()[-1]) if steps.exists() else 0
