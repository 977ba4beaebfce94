"""The whole training in one command, in stages; what is finished is left out when it runs again.

    python -m mini_world.emoji.train_all --run-dir DIR --minutes 1200                 two cores
    python -m mini_world.emoji.train_all --run-dir DIR --minutes 30 --device cuda     one GPU

--minutes is for the trainings alone; drawing 30,000 images takes 25 core-minutes more (--workers),
encoding them about as much on a CPU. Stop it whenever you like (ctrl-C, SIGTERM): a stage goes on
with the minutes that it has left. DIR/stages.json says what is done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mini_world.emoji import probes, train, vae
from mini_world.emoji.latents import encode_new
from mini_world.emoji.shards import draw_shards

WIDE_SHARDS, CORE_SHARDS = 10, 20  # of 1,000 images


@dataclass(frozen=True)
class Recipe:
    """Batches of one kind of machine."""

    vae_batch: int
    batch: int
    rate: float


RECIPES = {"cpu": Recipe(8, 32, 1.2e-3), "cuda": Recipe(64, 256, 2e-3)}


@dataclass
class Stages:
    """Minutes spent in each training stage, and which stages are finished."""

    path: Path
    spent: dict[str, float] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Stages:
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return cls(path, **known)

    def write(self) -> None:
        part = self.path.with_suffix(".part")
        text = json.dumps({"spent": self.spent, "finished": self.finished}, indent=2)
        part.write_text(text + "\n", "utf-8")
        part.replace(self.path)

    def run(self, name: str, minutes: float, work: Callable[[float], bool]) -> bool:
        """work(minutes left) says whether it came to its end. False where it was stopped."""
        if name in self.finished:
            return True
        start = time.monotonic()
        done = work(max(0.0, minutes - self.spent.get(name, 0.0)))
        self.spent[name] = self.spent.get(name, 0.0) + (time.monotonic() - start) / 60
        if done:
            self.finished.append(name)
        self.write()
        print(f"{name}: {'done' if done else 'stopped'}", flush=True)
        return done


def run_all(run_dir: Path, minutes: float, device: str, workers: int) -> bool:
    """Every stage in its order; False where one was stopped."""
    run_dir.mkdir(parents=True, exist_ok=True)
    stages, recipe = Stages.read(run_dir / "stages.json"), RECIPES[torch.device(device).type]

    def drawn(wide: bool, count: int) -> Callable[[float], bool]:
        def work(left: float) -> bool:
            draw_shards(run_dir, wide, range(count), workers)
            return True

        return work

    def of_vae(cool: bool) -> Callable[[float], bool]:
        return lambda left: vae.train(run_dir, left, vae.RATE, cool, device, recipe.vae_batch)

    def sharpened(left: float) -> bool:
        return vae.train(run_dir, left, vae.RATE / 2, True, device, recipe.vae_batch, sharpen=True)

    def of_unet(cool: bool) -> Callable[[float], bool]:
        return lambda left: train.train(
            run_dir, left, recipe.rate, cool, device, recipe.batch, False
        )

    def encoded(left: float) -> bool:
        encode_new(run_dir, device)
        return True

    def train_judges(left: float) -> bool:
        probes.draw(run_dir)
        probes.train(run_dir, 1200, ["content", "style"], probes.vocabulary(run_dir / "probes"))
        return True

    plan: list[tuple[str, float, Callable[[float], bool]]] = [
        ("images for the VAE", 0, drawn(True, WIDE_SHARDS)),
        ("VAE", 0.24, of_vae(False)),
        ("VAE, cooling", 0.08, of_vae(True)),
        ("images for the UNet", 0, drawn(False, CORE_SHARDS)),
        ("latents", 0, encoded),
        ("UNet", 0.46, of_unet(False)),
        ("UNet, cooling", 0.16, of_unet(True)),
        ("decoder, sharper", 0.06, sharpened),
        ("judges", 0, train_judges),
    ]
    return all(stages.run(name, share * minutes, work) for name, share, work in plan)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return int(not run_all(args.run_dir, args.minutes, args.device, args.workers))


if __name__ == "__main__":
    raise SystemExit(main())
