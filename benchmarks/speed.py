"""python -m benchmarks.speed [--json FILE] [--trials 7] [--part PART] [--full-size] [--profile]

PART is steps, plans, outside or all:
steps     our step for two LoRAs against a plain step for one (peft on diffusers, the same UNet,
          the same checkpointing, AdamW) and against a bare forward: SDXL's topology with widths
          128/256/512, 64 x 64 latents, rank 64, fp32. Trials alternate; medians and quartiles.
plans     a step of each memory plan against one of `full`, in the same topology; "nothing made
          again" is `full` as it is on a small UNet.
outside   the share of a whole 600-step run on the miniature that is not ordinary steps: loading,
          encoding, measuring importance, saving, events.
--full-size takes SDXL itself for steps and plans: its own widths, 1024 px, the base in bf16, the
plain step under autocast. It takes a minute or two a step and 20 GB; `full` with nothing made again
is left out.
--profile prints where one step's time goes instead.

On a CPU seconds are processor time of this process; OMP_NUM_THREADS=1 makes them the wall's.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import nn

from benchmarks.results import described, write
from benchmarks.simulate_memory import real_trainer
from benchmarks.timing import alternating, clock, ratio
from unziplora.testing.random_checkpoint import FULL, Widths, unet_of
from unziplora.training.memory_plans import PLANS
from unziplora.training.trainer import Trainer
from unziplora.unet.layer_names import PROJECTIONS
from unziplora.unet.recompute import recomputed

WIDTHS = Widths(unet=(128, 256, 512), text=(768, 1280))
RESOLUTION, RANK = 512, 64  # 64 x 64 latents
BARS = {
    "pair_over_plain": 1.05,
    "pair_over_plain_checkpoint": 1.05,
    "pair_over_forward": 2.4,
    "pair_over_forward_checkpoint": 3.4,
    "outside_share": 0.02,
}


@dataclass(frozen=True)
class Size:
    """Of what is timed; dtype: of the base model."""

    widths: Widths = WIDTHS
    resolution: int = RESOLUTION
    dtype: torch.dtype = torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """As the plain script runs a base of this precision."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu", self.dtype)


REDUCED = Size()
FULL_SIZE = Size(FULL, 1024, torch.bfloat16)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Our step against a plain one.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--part", choices=("steps", "plans", "outside", "all"), default="all")
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(arguments)
    print(described())
    size = FULL_SIZE if args.full_size else REDUCED
    if args.profile:
        profile(size)
        return 0
    result: dict[str, Any] = {}
    if args.part in ("steps", "all"):
        for plan in ("full", "checkpoint"):
            result |= steps(plan, args.trials, size)
    if args.part in ("plans", "all"):
        result |= plans(args.trials, size)
    if args.part in ("outside", "all"):
        result |= outside()
    for name, value in result.items():
        bar = f"   (at most {BARS[name]} wanted)" if name in BARS else ""
        print(f"{name:<30} {value}{bar}")
    write(args.json, result)
    return 0


def steps(plan: str, trials: int, size: Size = REDUCED) -> dict[str, Any]:
    """Ratios and median seconds under one plan."""
    ours = trained(plan, size)
    bare = same_unet(ours.host.unet, widths=size.widths)
    plain = same_unet(ours.host.unet, widths=size.widths)
    works = {
        "forward": _forward(bare, ours, size),
        "plain": _plain_step(plain, ours, size),
        "pair": ours.advance,
    }
    again = ours.plan.recompute == "blocks"
    same = recomputed(plain, "blocks") if again else contextlib.nullcontext()
    with ours.plan.on(ours.host.unet, ours.attachment), same:
        times = alternating(works, trials)
    suffix = "" if plan == "full" else "_checkpoint"
    return {
        f"pair_over_plain{suffix}": ratio(times["pair"], times["plain"]),
        f"pair_over_forward{suffix}": ratio(times["pair"], times["forward"]),
        f"seconds{suffix}": {name: round(median(taken), 3) for name, taken in times.items()},
    }


def plans(trials: int, size: Size = REDUCED) -> dict[str, Any]:
    """A step of each plan over one of `full`, and median seconds. A plan is entered and left
    outside of what is timed."""
    full, *others = PLANS
    trainers = {full: trained(full, size)}
    for name in others:
        unet = same_unet(trainers[full].host.unet, widths=size.widths)
        trainers[name] = trained(name, size, unet)
    works: dict[str, Callable[[], Any]] = {}
    if size == REDUCED:
        unet = same_unet(trainers[full].host.unet, widths=size.widths)
        works["nothing made again"] = trained(full, size, unet).advance  # its plan is left again
    with contextlib.ExitStack() as stack:
        for name, trainer in trainers.items():
            stack.enter_context(trainer.plan.on(trainer.host.unet, trainer.attachment))
            works[name] = trainer.advance
        times = alternating(works, trials)
    ratios = {name: ratio(times[name], times["full"]) for name in works if name != "full"}
    seconds = {name: round(median(taken), 3) for name, taken in times.items()}
    return {"over_full": ratios, "seconds_of_plans": seconds}


def trained(plan: str, size: Size = REDUCED, unet: nn.Module | None = None) -> Trainer:
    """Past the first measuring window, so that its steps are ordinary ones; on this UNet, or one of
    random weights."""
    trainer = real_trainer(
        "sdxl", size.resolution, RANK, plan, widths=size.widths, dtype=size.dtype, unet=unet
    )
    with trainer.plan.on(trainer.host.unet, trainer.attachment):
        trainer.advance()
    return trainer


def same_unet(unet: nn.Module, architecture: str = "sdxl", widths: Widths = WIDTHS) -> Any:
    """Another UNet on the very same weights, without branches."""
    with torch.device("meta"):
        config = unet_of(architecture, widths).config(widths.text[1])
        other = UNet2DConditionModel(**config).eval()
    for module, same in zip(other.modules(), unet.modules(), strict=True):
        module._parameters.update(same._parameters)
    return other


def inputs(trainer: Trainer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of a plain UNet's forward pass."""
    encoded = trainer.encoded
    t = torch.tensor([500])
    added = trainer.host.added_conditioning(encoded.pooled[:1], encoded.sizes)
    return (encoded.latents, t, encoded.context[:1]), {"added_cond_kwargs": added}


def _forward(unet: Any, trainer: Trainer, size: Size) -> Callable[[], Any]:
    args, named = inputs(trainer)

    def forward() -> None:
        with torch.no_grad(), size.autocast():
            unet(*args, **named)

    return forward


def _plain_step(unet: Any, trainer: Trainer, size: Size) -> Callable[[], None]:
    """As diffusers' train_dreambooth_lora_sdxl.py does it, with fused AdamW as ours."""
    parameters = with_lora(unet, RANK)
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    args, named = inputs(trainer)
    target = torch.randn_like(args[0])

    def step() -> None:
        noise = torch.randn_like(args[0])
        with size.autocast():
            prediction = unet(args[0] + noise, *args[1:], **named).sample
        nn.functional.mse_loss(prediction.float(), target).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def with_lora(unet: Any, rank: int) -> list[nn.Parameter]:
    """The parameters of one LoRA on all attention projections, by peft."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(PROJECTIONS)))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def outside(count: int = 600) -> dict[str, Any]:
    """Of a whole run on the miniature."""
    from unziplora import mini
    from unziplora import python_api as api
    from unziplora.hosts.standalone.host import StandaloneHost

    with tempfile.TemporaryDirectory() as folder, timed_steps() as taken:
        began = clock()
        host = StandaloneHost.open(mini.MODEL)
        run = api.train(
            mini.IMAGE,
            subject=mini.SUBJECT,
            style=mini.STYLE,
            host=host,
            settings={"steps": count},
            out=Path(folder),
        )
        for _ in run:
            pass
        total = clock() - began
    settings = run.settings
    measuring = [n % settings.recalibrate_every < settings.window for n in range(count)]
    ordinary, longer = (
        [s for s, m in zip(taken, measuring, strict=True) if m is kind] for kind in (False, True)
    )
    share = 1 - (sum(ordinary) + len(longer) * median(ordinary)) / total
    return {
        "outside_share": round(share, 4),
        "outside": {
            "steps": count,
            "total_seconds": round(total, 1),
            "ordinary_step": round(median(ordinary), 4),
            "measuring_step": round(median(longer), 4),
        },
    }


@contextlib.contextmanager
def timed_steps() -> Iterator[list[float]]:
    """Seconds of every step that a trainer makes meanwhile."""
    taken: list[float] = []
    advance = Trainer.advance

    def timed(trainer: Trainer) -> Any:
        began = clock()
        losses = advance(trainer)
        taken.append(clock() - began)
        return losses

    with mock.patch.object(Trainer, "advance", timed):
        yield taken


def profile(size: Size) -> None:
    """The operations of one ordinary step, by their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    trainer = trained("full", size)
    with trainer.plan.on(trainer.host.unet, trainer.attachment):
        trainer.advance()
        with profiled(activities=[ProfilerActivity.CPU]) as found:
            trainer.advance()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    raise SystemExit(main())
