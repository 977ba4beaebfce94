"""Train the VAE on the emoji world: `python -m mini_world.emoji.vae --run-dir DIR --minutes 60`.

Starts from the shipped miniature's VAE, and continues where it stopped (saved every few minutes and
on SIGTERM). Random 64 px crops of the wide shards; the errors of mini_world.vae (pixels,
differences, texture, colour), squared error, and EfficientNet-lite0's early features. `--cool` lets
the rate fall to 0: the last stretch before latents are made. Afterwards the latents are whitened
(mini_world.vae.whiten) and DIR/vae is written as a diffusers folder.
`--sharpen` trains the decoder of DIR/vae alone, with a critic (critic.py): latents stay what they
are to the bit, so that it can be done beside the UNet's training or after it.

On a CPU without bfloat16 units everything is float32 in channels-last layout (a crop takes about
0.15 s of two idle cores); `--device cuda` uses bfloat16 and larger batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mini_world.emoji.clock import Clock, stretch_parser
from mini_world.emoji.critic import Adversary
from mini_world.emoji.things import Individual
from mini_world.emoji.world import HELD_OUT_STYLES, TRAINING_STYLES, held_out_individuals, portrait
from mini_world.encoder import PerceptualLoss
from mini_world.model import new_vae
from mini_world.precision import fast
from mini_world.vae import ReconstructionLoss, near, pixels, show, whiten

CROP, BATCH = 64, 8
RATE = 6e-4
LATENT_NOISE = 0.03  # of the latents' deviation, while training
PERCEPTUAL, SQUARED = 0.35, 4.0  # weights beside mini_world.vae's errors


def first_vae() -> AutoencoderKL:
    """What this training starts from: the shipped miniature's VAE."""
    from unziplora import mini
    from unziplora.checkpoints.checkpoint import open_checkpoint
    from unziplora.checkpoints.identify import identify

    vae = new_vae()
    kept = open_checkpoint(identify(mini.MODEL)).vae(torch.device("cpu")).state_dict()
    vae.load_state_dict({name: value.float() for name, value in kept.items()})
    return vae


def shards(run_dir: Path) -> list[np.ndarray]:
    """Every finished wide shard, mapped: (1000, 128, 128, 3) uint8 each."""
    found = sorted((run_dir / "wide").glob("[0-9][0-9][0-9][0-9].npy"))
    return [np.load(path, mmap_mode="r") for path in found]


def crops(images: list[np.ndarray], rng: np.random.Generator, count: int) -> Tensor:
    """Random crops, mirrored and turned; a sixth in colours nobody drew. (n, 3, CROP, CROP)."""
    taken = []
    for _ in range(count):
        shard = images[rng.integers(len(images))]
        # a crop of the middle more often than one of the rim: there the things are
        y, x = np.clip(rng.normal(32, 20, 2), 0, 128 - CROP).astype(int)
        crop = shard[rng.integers(len(shard)), y : y + CROP, x : x + CROP]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        if rng.random() < 0.16:
            crop = crop[..., rng.permutation(3)]
            crop = 255 - crop if rng.random() < 0.5 else crop
        taken.append(crop)
    return pixels(np.stack(taken))


def unseen(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Held-out individuals in training styles, and in held-out styles, (count, 128, 128, 3)."""
    who = held_out_individuals()
    known, new = (
        np.stack([portrait(pick(who, i), styles[i % len(styles)], 2000 + i, i).draw()
                  for i in range(count)])
        for styles in (["", *TRAINING_STYLES], HELD_OUT_STYLES)
    )  # fmt: skip
    return known, new


def pick(who: list[Individual], number: int) -> Individual:
    return who[number % len(who)]


@torch.no_grad()
def through(vae: AutoencoderKL, images: np.ndarray, batch: int = 8) -> np.ndarray:
    """What the VAE makes of images (n, h, w, 3) uint8: encoded and decoded again."""
    decoded = []
    device = next(vae.parameters()).device
    for i in range(0, len(images), batch):
        x = pixels(images[i : i + batch]).to(device).contiguous(memory_format=torch.channels_last)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample
        y = y.permute(0, 2, 3, 1).clamp(-1, 1) * 127.5 + 127.5
        decoded.append(y.round().byte().cpu().numpy())
    return np.concatenate(decoded)


def psnr(decoded: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise of the mean squared error over all images, dB."""
    error = (decoded.astype(np.float64) - truth) ** 2
    return float(10 * np.log10(255**2 / error.mean()))


class VaeTraining:
    """A VAE with its errors and optimizer, on one device."""

    def __init__(self, run_dir: Path, device: str, sharpen: bool = False) -> None:
        self.state_path = run_dir / ("decoder.pt" if sharpen else "vae.pt")
        self.device, self.step = torch.device(device), 0
        torch.manual_seed(3)
        if self.state_path.exists():
            self.vae = new_vae()
        elif sharpen and (run_dir / "vae").exists():
            self.vae = AutoencoderKL.from_pretrained(run_dir / "vae")
        else:
            self.vae = first_vae()
        self.vae.to(self.device, memory_format=torch.channels_last)
        self.error = ReconstructionLoss().to(self.device)
        self.perceptual = PerceptualLoss().to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.vae.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0, fused=True
        )
        state: dict[str, Any] = {}
        if self.state_path.exists():
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self.vae.load_state_dict(state["vae"])
            if "optimizer" in state:
                self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        self.adversary = Adversary(self.device) if sharpen else None
        if self.adversary is not None:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
            if "adversary" in state:
                self.adversary.load_state_dict(state["adversary"])

    def save(self) -> None:
        part = self.state_path.with_suffix(".part")
        state = {"vae": self.vae.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.adversary is not None:
            state["adversary"] = self.adversary.state_dict()
        torch.save({**state, "step": self.step}, part)
        part.replace(self.state_path)

    def one_step(self, truth: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        truth = truth.to(self.device).contiguous(memory_format=torch.channels_last)
        with fast(self.device):
            mean = self.vae.encode(truth).latent_dist.mode()
            noise = near(mean.detach(), LATENT_NOISE) - mean.detach()
            decoded = self.vae.decode(mean + noise).sample
        decoded = decoded.float()
        loss = self.error(decoded, truth) + SQUARED * (decoded - truth).pow(2).mean()
        loss = loss + PERCEPTUAL * self.perceptual(decoded, truth)
        if self.adversary is not None:
            loss = loss + self.adversary.error(decoded)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.adversary is not None:
            self.adversary.learn(decoded, truth)
        return float(loss.detach())


def train(
    run_dir: Path,
    minutes: float,
    rate: float,
    cool: bool,
    device: str,
    batch: int,
    sharpen: bool = False,
) -> bool:
    """Whether the whole stretch was run, rather than stopped."""
    training, clock = VaeTraining(run_dir, device, sharpen), Clock(minutes)
    known, new = unseen()
    rng, losses = np.random.default_rng((3, training.step)), []
    first = training.step

    def report() -> None:
        values = [psnr(through(training.vae.eval(), images), images) for images in (known, new)]
        print(f"PSNR of unseen images: training styles {values[0]:.2f} dB, held-out styles "
              f"{values[1]:.2f} dB", flush=True)  # fmt: skip

    images = shards(run_dir)
    while clock.running:
        warm = min(1.0, (training.step - first + 1) / 40)
        now = rate * warm * (clock.falling if cool else 1.0)
        losses.append(training.one_step(crops(images, rng, batch), now))
        if clock.due("save", 3):
            training.save()
            print(f"{clock.minutes:.1f} min, step {training.step}, loss {np.mean(losses):.4f}",
                  flush=True)  # fmt: skip
            losses, images = [], shards(run_dir)
        if clock.due("report", 25):
            report()
    training.save()
    report()
    finish(training, images, known, new, run_dir)
    return not clock.stopped


def finish(
    training: VaeTraining,
    images: list[np.ndarray],
    known: np.ndarray,
    new: np.ndarray,
    run_dir: Path,
) -> None:
    """Write vae/ with white latents, which a decoder's training has from the beginning; vae.pt
    stays as trained."""
    vae = training.vae.cpu().eval()
    if training.adversary is None:
        whiten(vae, images[0][:200])
    vae.save_pretrained(run_dir / "vae")
    show(vae, np.concatenate([known[:12], new[:12]]), run_dir / "vae.png")


def main() -> None:
    parser = stretch_parser(__doc__, RATE, BATCH)
    parser.add_argument("--sharpen", action="store_true", help="the decoder alone, with a critic")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    train(a.run_dir, a.minutes, a.rate, a.cool, a.device, a.batch, a.sharpen)


if __name__ == "__main__":
    main()
