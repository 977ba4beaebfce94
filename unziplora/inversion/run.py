"""An inversion from image to two embedding files: seeds tried, the best one continued, written."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from unziplora import files
from unziplora.errors import Interrupted, InvalidInput, WriteError
from unziplora.host import EncoderHost, Host, LearnableEncoders
from unziplora.images.load import SourceImage, fit
from unziplora.inversion.candidate import Candidate
from unziplora.inversion.consistency import innermost, score
from unziplora.inversion.embedding_file import read_embedding, write_embedding
from unziplora.inversion.settings import METHOD, InversionSettings
from unziplora.inversion.state import InversionState, Progress
from unziplora.lora.pair import pair_files
from unziplora.method.prompts import BRANCHES
from unziplora.training.commands import Commands
from unziplora.training.events import Command
from unziplora.training.memory_forecast import forecast
from unziplora.training.memory_plans import is_small
from unziplora.training.model_traits import ModelTraits
from unziplora.training.objective import Objective
from unziplora.training.settings import Settings
from unziplora.unet.recompute import recomputed
from unziplora.version import __version__

STATE_STEPS = 20  # the state is written so often; it is small
_FEATURES_AT = 4  # a quarter of the schedule: enough noise to look at the whole, and not at grain


@dataclass(frozen=True)
class InversionStarted:
    """memory: as "VRAM: about 9.1 GB of 10.4 GB free"."""

    steps: int
    memory: str


@dataclass(frozen=True)
class InversionStep:
    """step of steps are done, over all seeds. seed: whose turn it is. time_left: seconds, of the
    steps; None before it can be known."""

    step: int
    steps: int
    seed: int
    loss: float
    time_left: float | None


@dataclass(frozen=True)
class SeedScored:
    """How consistent the images of one seed's embeddings are; higher is better."""

    seed: int
    score: float


@dataclass(frozen=True)
class EmbeddingsSaved:
    """The two files, at a step of the seed that is kept."""

    step: int
    files: tuple[Path, ...]
    final: bool


@dataclass(frozen=True)
class InversionMessage:
    """A sentence for the user."""

    text: str


InversionEvent = InversionStarted | InversionStep | SeedScored | EmbeddingsSaved | InversionMessage


class InversionRun:
    """Iterated by `on`, once; `send("stop")` ends it after its step, with its files written.

    One that was stopped or killed is continued where the same image and settings are given again,
    unless `overwrite`. Raises InvalidInput for a name that is taken, by finished files or by
    an unfinished inversion of something else, unless `overwrite`.
    """

    def __init__(
        self,
        image: SourceImage,
        settings: InversionSettings,
        out: Path,
        *,
        overwrite: bool = False,
    ) -> None:
        self.settings, self.training = settings, False
        self.paths = pair_files(out, files.check_name(settings.name))
        self._image = image
        self._commands = Commands()
        self._seconds: deque[float] = deque(maxlen=20)
        files.check_output_folder(out)
        self._state = InversionState(out, image, settings)
        self._before = None if overwrite else self._state.read()
        self._pair = self._before.pair if self._before else uuid.uuid4().hex
        self._scores = dict(self._before.scores) if self._before else {}
        self._done = self._before.done if self._before else 0
        self._begun: dict[int, Candidate] = {}
        self._refused = ""  # why the state could not be written
        self._overwrite = overwrite
        for path in self.paths.values():
            if path.exists() and not overwrite:
                self._check_own(path)

    @property
    def interruptible(self) -> bool:
        """Files are whole or not there, and what was saved last stays."""
        return True

    @property
    def stopped(self) -> bool:
        """Whether it ended before its last step."""
        return self._done < self.settings.all_steps

    def send(self, command: Command) -> None:
        """Is obeyed after the current step; from any thread."""
        self._commands.send(command)

    def on(self, host: Host) -> Generator[InversionEvent, None, None]:
        """Raises InvalidInput for a host whose text encoders cannot be learned through."""
        if not isinstance(host, EncoderHost):
            raise InvalidInput(
                f"The method {METHOD} learns through the text encoders, which this program does "
                "not lend. Use `unziplora train` on the command line."
            )
        self._model = host.model.sha256 or host.model.name
        self._check_model()
        with contextlib.ExitStack() as on:
            on.enter_context(self._state.locked())
            if self._before is None:
                self._state.remove()
            on.enter_context(host.borrow())
            encoders = on.enter_context(host.learnable_encoders())
            if not is_small(host.unet):
                on.enter_context(recomputed(host.unet, "blocks"))
            yield InversionStarted(self.settings.all_steps, self._memory(host, encoders))
            yield from map(InversionMessage, self._image.notes)
            if self._before is not None:
                yield InversionMessage(
                    f"An unfinished inversion continues at step {self._done + 1} of "
                    f"{self.settings.all_steps}."
                )
            yield from self._learn(host, encoders)

    def _check_own(self, path: Path) -> None:
        """Raises InvalidInput for a file that this inversion did not write earlier."""
        with contextlib.suppress(InvalidInput):  # a file of another kind
            if self._before is not None and read_embedding(path)[1].get("pair") == self._pair:
                self._overwrite = True
                return
        raise InvalidInput(f"{path.name} exists already. Choose another name.")

    def _check_model(self) -> None:
        """Raises InvalidInput where the state is of another."""
        if self._before is not None and self._before.model != self._model:
            raise InvalidInput(
                f"{self.settings.name} is an unfinished inversion on another model. Give the same "
                "to continue it, add --overwrite to begin again, or choose another name."
            )

    def _learn(
        self, host: Host, encoders: LearnableEncoders
    ) -> Generator[InversionEvent, None, None]:
        make = self._candidates(host, encoders)
        best = yield from self._most_consistent(host, make)
        yield from self._train(best, self.settings.steps, host)
        if best.step:
            yield self._save(host, best, final=True)
        if not self.stopped:
            with contextlib.suppress(OSError):  # both files are written
                self._state.remove()

    def _most_consistent(
        self, host: Host, make: Callable[[int], Candidate]
    ) -> Generator[InversionEvent, None, Candidate]:
        """Trains each seed for its trial, and compares them where there are several."""
        settings, tried = self.settings, list[Candidate]()
        for number in range(settings.seeds):
            candidate = make(settings.seed + number)
            tried.append(candidate)
            yield from self._train(candidate, settings.trial_steps)
            if self._commands.stopping:
                break
            if settings.seeds > 1 and candidate.seed not in self._scores:
                yield from self._compare(host, candidate)
        best = max(tried, key=self._rating)
        if self._scores:
            yield InversionMessage(f"The most consistent seed is {best.seed}.")
        return best

    def _rating(self, candidate: Candidate) -> float:
        """One that was not compared is worse than all others."""
        return self._scores.get(candidate.seed, -math.inf)

    def _candidates(self, host: Host, encoders: LearnableEncoders) -> Callable[[int], Candidate]:
        """What makes one, from its seed."""
        side = self.settings.resolution or host.defaults.resolution
        fitted = fit(self._image, side, "aspect")
        latents = host.encode_image(fitted.pixels, None).float()
        objective = Objective(host.alphas_cumprod, host.prediction_type)

        def make(seed: int) -> Candidate:
            candidate = Candidate(
                host, encoders, objective, latents, fitted.sizes, seed=seed, lr=self.settings.lr
            )
            if self._before is not None:
                self._state.restore(candidate, self._before)
            self._begun[seed] = candidate
            return candidate

        return make

    def _train(
        self, candidate: Candidate, until: int, host: Host | None = None
    ) -> Iterator[InversionEvent]:
        """host: also saves on the way."""
        settings = self.settings
        while candidate.step < until and not self._commands.stopping:
            began = time.monotonic()
            loss = candidate.advance()
            self.training = True
            self._done += 1
            self._seconds.append(time.monotonic() - began)
            left = median(self._seconds) * (settings.all_steps - self._done)
            if self._done % STATE_STEPS == 0 or candidate.step == until:
                yield from self._keep()
            yield InversionStep(self._done, settings.all_steps, candidate.seed, loss, left)
            if host is not None and candidate.step % settings.save_every == 0:
                yield self._save(host, candidate, final=False)
        if self._commands.stopping and self._done:
            yield from self._keep()

    def _keep(self) -> Iterator[InversionEvent]:
        """The state as it is now. Where the disk refuses it, that is said once, and the steps
        continue."""
        known = Progress(self._pair, self._model, self._done, self._scores)
        try:
            self._state.write(known, self._begun)
        except WriteError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                yield InversionMessage(self._refused)

    def _compare(self, host: Host, candidate: Candidate) -> Iterator[InversionEvent]:
        """Draws both embeddings of a candidate, and scores them."""
        try:
            content, style = (
                candidate.features(role, self.settings.images, lambda p, n: self._look(host, p, n))
                for role in BRANCHES
            )
        except Interrupted:
            return
        self._scores[candidate.seed] = score(content, style)
        yield SeedScored(candidate.seed, self._scores[candidate.seed])

    def _look(self, host: Host, prompt: str, number: int) -> Tensor:
        """(features,) of an image of the prompt, as the UNet sees it."""
        if self._commands.stopping:
            raise Interrupted("stopped")
        side = 8 * round(host.defaults.resolution / 8)
        image = host.preview(
            prompt, negative="", size=(side, side), steps=self.settings.image_steps, seed=number
        )
        fitted = fit(SourceImage(image.convert("RGB")), side, "centre")
        latents = host.encode_image(fitted.pixels, None).float()
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(number))
        t = torch.tensor([len(host.alphas_cumprod) // _FEATURES_AT], device=latents.device)
        noisy = Objective(host.alphas_cumprod, host.prediction_type).add_noise(
            latents, noise.to(latents), t
        )
        context, pooled = host.encode_prompts([""])
        added = host.added_conditioning(pooled, fitted.sizes)
        with innermost(host.unet) as found:
            host.denoise(noisy, t, context, added)
        return found[0]

    def _save(self, host: Host, candidate: Candidate, *, final: bool) -> EmbeddingsSaved:
        settings, vectors = self.settings, candidate.vectors
        made_by = {
            "pair": self._pair, "method": METHOD, "steps": candidate.step,
            "planned_steps": settings.steps, "lr": settings.lr, "seed": candidate.seed,
            "scores": self._scores, "model": host.model.name, "model_sha256": host.model.sha256,
            "software": f"unziplora {__version__}",
        }  # fmt: skip
        for role, path in self.paths.items():
            write_embedding(path, vectors[role], role, made_by, new=not self._overwrite)
        self._overwrite = True  # they are ours now
        return EmbeddingsSaved(candidate.step, tuple(self.paths.values()), final)

    def _memory(self, host: Host, encoders: LearnableEncoders) -> str:
        """Of a run with LoRAs of rank 1, which the embeddings are less than, and both encoders."""
        plan = "full" if is_small(host.unet) else "checkpoint"
        words = Settings("any", "any", rank=1, memory=plan, resolution=self.settings.resolution)  # type: ignore[arg-type]
        traits = ModelTraits.of(host.unet, host.defaults)
        expected = forecast(
            host.unet, host.device, words.resolve(traits), host.defaults.architecture
        )
        need = expected.need + getattr(encoders, "size", 0) / 1e9
        free = "" if expected.free is None else f" of {expected.free:.1f} GB free"
        doubt = expected.free is not None and need > expected.free
        return f"{expected.kind}: about {need:.1f} GB{free}{', may not fit' if doubt else ''}"
