"""The mergers of two finished LoRAs, learned on the model (ZipLoRA, arXiv 2311.13600, eqs. 2, 3).

    |(D + L_m)(x_c, p_c) - (D + L_c)(x_c, p_c)|^2 + |(D + L_m)(x_s, p_s) - (D + L_s)(x_s, p_s)|^2
        + lambda |m_c . m_s|

L_c, L_s: the files alone, with their weights; L_m: both with mergers; p_c, p_s: a prompt for each.
x_c, x_s: noisy latents. The paper takes them of the images that the LoRAs were trained on; a
finished file has none, so each draws its own here. Mergers begin at 1, at which L_m is the sum.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor

from unziplora.errors import Interrupted, InvalidInput, TrainingFailed
from unziplora.host import Host, SharedHost
from unziplora.images.load import SourceImage, fit
from unziplora.lora.apply import check_fits, targets_in
from unziplora.lora.mergers import Learned, overlap
from unziplora.lora.read import LoraFile
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.commands import Commands
from unziplora.training.events import Command
from unziplora.training.loss_scale import loss_scaler
from unziplora.training.memory_plans import is_small
from unziplora.training.objective import Objective
from unziplora.training.timesteps import stratified
from unziplora.unet.recompute import recomputed
from unziplora.unet.weight_cast import in_fp16
from unziplora.ziplora.layers import BothLoras

MOST_STEPS = 10_000
_MEASURED = 4  # timesteps at which the sum and what was learned are compared


@dataclass(frozen=True)
class ZipSettings:
    """steps, lr, overlap (lambda): the paper's. seed: of all that is drawn. images: that each LoRA
    draws to learn on. Raises InvalidInput."""

    steps: int = 100
    lr: float = 0.01
    overlap: float = 0.01
    seed: int = 0
    images: int = 2
    image_steps: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise InvalidInput(
                f"ZipLoRA cannot learn for {self.steps} steps. Choose 1 to {MOST_STEPS}."
            )
        if not 0 <= self.overlap <= 1e6:  # also where it is not a number
            raise InvalidInput(
                f"The weight of the overlap is {self.overlap:g}. Choose a number from 0 on."
            )
        if not 0 <= self.seed < 2**63:
            raise InvalidInput("The seed is not from 0 to 9223372036854775807. Choose another one.")


@dataclass(frozen=True)
class Losses:
    """content, style: mean squared differences to each file alone. overlap: |m_c * m_s|, before
    lambda."""

    content: float
    style: float
    overlap: float

    def total(self, weight: float) -> float:
        """weight: lambda."""
        return self.content + self.style + weight * self.overlap


@dataclass(frozen=True)
class DrawnForMerge:
    """Image `number` of `count`, counted from 1, is being drawn to learn on."""

    number: int
    count: int


@dataclass(frozen=True)
class MergeStep:
    """step: how many are done. time_left: seconds, or None before it can be known."""

    step: int
    steps: int
    losses: Losses
    time_left: float | None


@dataclass(frozen=True)
class MergeMessage:
    """A sentence for the user."""

    text: str


MergeEvent = DrawnForMerge | MergeStep | MergeMessage


@dataclass(frozen=True)
class _Role:
    """What a role's steps run on. latents: (images, 4, h, w)."""

    context: Tensor
    added: object
    latents: Tensor


class ZipLora:
    """Learns the mergers of a content and a style; iterating over it once drives it, and `learned`
    is what was learned by then.

    parts: the two files, with their weights. prompts: what each file is called with. `send("stop")`
    ends it after its step. Raises InvalidInput for files that do not fit the model.
    """

    def __init__(
        self,
        host: Host,
        parts: Sequence[tuple[LoraFile, float]],
        prompts: Mapping[BranchName, str],
        settings: ZipSettings | None = None,
    ) -> None:
        self.settings = settings or ZipSettings()
        self._host, self._prompts, self._parts = host, dict(prompts), list(parts)
        self.step = 0
        self.training = False  # whether the steps have begun
        self.before: Losses | None = None  # of the plain sum, on draws of their own
        self.after: Losses | None = None
        self._commands = Commands()
        modules = targets_in("unet", host.unet)
        for file, _ in self._parts:
            check_fits(file, modules)
        self._loras = BothLoras(host.unet, modules, self._parts)
        if not self._loras.has_mergers:
            raise InvalidInput(
                "Neither file changes a linear layer of this model's UNet, so there is nothing to "
                "learn. Merge them with --how add."
            )
        self._objective = Objective(host.alphas_cumprod, host.prediction_type)
        self._roles: dict[BranchName, _Role] = {}
        self._generator = torch.Generator().manual_seed(self.settings.seed)

    @property
    def interruptible(self) -> bool:
        """An exception loses nothing but what was learned: no file is written meanwhile."""
        return True

    def send(self, command: Command) -> None:
        """Is obeyed after the current step; from any thread."""
        self._commands.send(command)

    @property
    def stopped(self) -> bool:
        """Whether it ended, or will end, before its last step."""
        return self.step < self.settings.steps

    def learned(self) -> Learned:
        content, style = (weight for _, weight in self._parts)
        settings = asdict(self.settings)
        record = {
            "zip": {
                **{name: settings[name] for name in ("lr", "overlap", "seed", "images")},
                "steps": self.step,
                "planned_steps": self.settings.steps,
                "prompts": self._prompts,
                "model": self._host.model.name,
                "model_sha256": self._host.model.sha256,
                **({"loss_of_sum": asdict(self.before)} if self.before else {}),
                **({"loss": asdict(self.after)} if self.after else {}),
            }
        }
        return Learned(self._loras.mergers(), (content, style), record)

    def __iter__(self) -> Generator[MergeEvent, None, None]:
        """The model is borrowed until the last event is read, or the iterator is closed."""
        try:
            with self._host.borrow(), contextlib.ExitStack() as on:
                self._put_on(on)
                yield from map(MergeMessage, self._notes())
                yield from self._draw_images()
                if not self._commands.stopping:
                    yield from self._learn(on)
        except Interrupted:  # what the host drew for this
            self.send("stop")

    def _put_on(self, on: contextlib.ExitStack) -> None:
        self._loras.put_on()
        on.callback(self._loras.take_off)
        if not is_small(self._host.unet):
            on.enter_context(recomputed(self._host.unet, "blocks"))

    def _notes(self) -> Iterator[str]:
        for file, _ in self._parts:
            apart = sum(target.network != "unet" for target in file.adapters)
            if apart:
                yield (
                    f"{file.path.name}: its layers of the text encoders ({apart}) are added up as "
                    "they are."
                )
        yield from getattr(self._host, "notes", ())

    def _draw_images(self) -> Iterator[MergeEvent]:
        """Fills `_roles`: each file's prompt, and latents of what it draws alone."""
        host, settings = self._host, self.settings
        side = 8 * round(host.defaults.resolution / 8)
        context, pooled = host.encode_prompts([self._prompts[role] for role in BRANCHES])
        for place, role in enumerate(BRANCHES):
            latents, sizes = [], None
            for number in range(settings.images):
                if self._commands.stopping:
                    return
                yield DrawnForMerge(
                    place * settings.images + number + 1, len(BRANCHES) * settings.images
                )
                self._loras.mode.which = role
                with torch.no_grad():
                    image = host.preview(
                        self._prompts[role], negative="", size=(side, side),
                        steps=settings.image_steps, seed=settings.seed + number,
                    )  # fmt: skip
                fitted = fit(SourceImage(image.convert("RGB")), side, "centre")
                sizes = fitted.sizes
                latents.append(host.encode_image(fitted.pixels, None).float())
            assert sizes is not None
            added = host.added_conditioning(pooled[place : place + 1], sizes)
            self._roles[role] = _Role(context[place : place + 1], added, torch.cat(latents))

    def _learn(self, on: contextlib.ExitStack) -> Iterator[MergeEvent]:
        settings, parameters = self.settings, self._loras.parameters
        optimizer = torch.optim.Adam(parameters, lr=settings.lr)
        scaler = loss_scaler(self._host.device, enabled=in_fp16(self._host.unet))
        seconds: list[float] = []
        self.before = self._measure()
        self.training = True
        while self.step < settings.steps and not self._commands.stopping:
            began = time.monotonic()
            optimizer.zero_grad(set_to_none=True)
            errors = {}
            for role in BRANCHES:
                t = stratified(self.step, self._objective.timesteps, settings.seed)
                loss = self._difference(role, t, self._generator)
                scaler.scale(loss).backward()
                errors[role] = loss.item()
            shared = overlap(self._loras.shared_mergers())
            if shared.requires_grad and settings.overlap:
                scaler.scale(settings.overlap * shared).backward()
            losses = Losses(errors["content"], errors["style"], shared.item())
            if not math.isfinite(losses.total(settings.overlap)):
                raise TrainingFailed(
                    f"The loss of ZipLoRA became {losses.total(1.0)} at step {self.step + 1}. "
                    "Use a base model in bf16 or fp32, or merge with --how add."
                )
            scaler.step(optimizer)
            scaler.update()
            self.step += 1
            seconds.append(time.monotonic() - began)
            left = median(seconds[-20:]) * (settings.steps - self.step)
            yield MergeStep(self.step, settings.steps, losses, left)
            if not self._give_way_if_wanted(on):
                return
        if self.stopped:
            return
        self.after = self._measure()
        if self.after.total(settings.overlap) > self.before.total(settings.overlap):
            yield MergeMessage(
                "The learned merge is no nearer to its two files than their plain sum. Look at "
                "both; --how add makes the sum."
            )

    def _difference(self, role: BranchName, timestep: int, generator: torch.Generator) -> Tensor:
        """|(D + L_m)(x, p) - (D + L_role)(x, p)|^2, the mean, of an image and noise drawn here."""
        own, mode = self._roles[role], self._loras.mode
        which = int(torch.randint(len(own.latents), (1,), generator=generator))
        latents = own.latents[which : which + 1]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        t = torch.tensor([timestep], device=latents.device)
        noisy = self._objective.add_noise(latents, noise, t)
        mode.which = role
        with torch.no_grad():
            wanted = self._host.denoise(noisy, t, own.context, own.added).float()
        mode.which = "merged"
        got = self._host.denoise(noisy, t, own.context, own.added).float()
        return (got - wanted).square().mean()

    @torch.no_grad()
    def _measure(self) -> Losses:
        """At times spread over the schedule, with noise of its own: the same at each call."""
        generator = torch.Generator().manual_seed(self.settings.seed + 1)
        whole = self._objective.timesteps
        times = [(2 * number + 1) * whole // (2 * _MEASURED) for number in range(_MEASURED)]
        content, style = (
            sum(float(self._difference(role, t, generator)) for t in times) / _MEASURED
            for role in BRANCHES
        )
        return Losses(content, style, float(overlap(self._loras.shared_mergers())))

    def _give_way_if_wanted(self, on: contextlib.ExitStack) -> bool:
        """Lets those who wait for the model use it, between two steps. False where it is not lent
        again, because this was stopped meanwhile."""
        host = self._host
        last = self.step == self.settings.steps
        if last or not isinstance(host, SharedHost) or not host.wanted():
            return True
        on.close()
        if not host.give_way(lambda: self._commands.stopping):
            return False
        self._put_on(on)
        return True
