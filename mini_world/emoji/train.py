"""Train UNet and text encoders on the emoji world's latents.

    python -m mini_world.emoji.train --run-dir DIR --minutes 60          goes on where it stopped
    python -m mini_world.emoji.train --run-dir DIR --minutes 20 --cool   the rate falls to 0

Velocity with min-SNR weights (arXiv 2303.09556: min(SNR, 5) / (SNR + 1) for a velocity), a cosine
or constant rate after a warm-up, a moving average of the weights, one timestep in each part of the
schedule per batch. Starts from the shipped miniature (its latents are near to those of a VAE that
was trained on from its own), or --from-nothing.

Words that mislead (mini_world.miniature says why) are heard by each attention group in MISLED of
the samples, for what it is not in charge of.

On a CPU without bfloat16 units everything is float32; `--device cuda` uses bfloat16, and a batch of
256 fits any GPU.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from mini_world.captions import article, in_style
from mini_world.emoji.clock import Clock, stretch_parser
from mini_world.emoji.latents import Latents
from mini_world.emoji.styles import STYLES
from mini_world.emoji.things import CORE_KINDS
from mini_world.emoji.world import CORE_STYLES
from mini_world.miniature import Miniature, alphas_cumprod, heard, learn, sample
from mini_world.model import time_ids
from mini_world.precision import fast
from mini_world.vae import decode
from unziplora.unet.architectures import recognise
from unziplora.unet.prompt_swap import other_context

RATE, WARM_STEPS, BATCH = 1.2e-3, 100, 32
MIN_SNR = 5.0
AVERAGE = 0.998  # of the weights, per step
NO_CAPTION, EMPTY_CAPTION = 0.08, 0.03  # shares of samples: zeros; the empty prompt
NO_POOLED = 0.6  # attention must carry the words; the pooled vector alone could, too
MISLED = 0.25  # of samples, for each group and what it is not in charge of: another image's words
OTHER_SIZE = 0.15  # of samples: another original size is named, so that it means nothing


def first_model() -> Miniature:
    """What this training starts from: the shipped miniature."""
    from unziplora import mini
    from unziplora.checkpoints.checkpoint import open_checkpoint
    from unziplora.checkpoints.identify import identify

    model = Miniature()
    parts, cpu = open_checkpoint(identify(mini.MODEL)), torch.device("cpu")
    model.unet.load_state_dict(parts.unet(cpu, torch.float32).state_dict())
    first, second = parts.text_encoders(cpu, torch.float32)
    model.text.first.load_state_dict(first.state_dict())
    model.text.second.load_state_dict(second.state_dict())
    return model


class Captions:
    """Words of the images: what they say of content and of style, apart; tokens remembered."""

    def __init__(self, model: Miniature, facts: list[dict[str, Any]]) -> None:
        self._text, self._facts = model.text, facts
        self._tokens: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token ids for each encoder, (4 n, 77): the images' own content and style, then with
        another image's style, with another's content, and another's captions."""
        own = [self._parts(self._facts[i], rng) for i in chosen]
        others = own[1:] + own[:1]
        texts = [
            in_style(content, style) if content else ""
            for contents, styles in ((own, own), (own, others), (others, own), (others, others))
            for (content, _), (_, style) in zip(contents, styles, strict=True)
        ]
        for text in set(texts) - self._tokens.keys():
            first, second = self._text.tokens([text])
            self._tokens[text] = first[0], second[0]
        first, second = zip(*(self._tokens[text] for text in texts), strict=True)
        return torch.stack(first), torch.stack(second)

    def _parts(self, facts: dict[str, Any], rng: np.random.Generator) -> tuple[str, str]:
        if rng.random() < EMPTY_CAPTION:
            return "", ""
        caption, style = str(rng.choice(facts["captions"])), facts["style"]
        for name in (style, STYLES[style].family):
            if name and f" in {name} style" in caption:
                return caption.replace(f" in {name} style", ""), name
        return caption, ""


def loss_of(
    model: Miniature,
    clean: Tensor,
    tokens: tuple[Tensor, Tensor],
    alphas: Tensor,
    rng: np.random.Generator,
    groups: Sequence[str],
) -> Tensor:
    """Weighted mean squared error of the velocity sqrt(a) noise - sqrt(1 - a) clean."""
    n, device = len(clean), clean.device
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(clean.shape, generator=seed).to(device)
    spread = (torch.arange(n) + torch.rand(n, generator=seed)) / n  # one in each part
    timesteps = (spread * 1000).long()
    a = alphas[timesteps].float()[:, None, None, None].to(device)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    target = a.sqrt() * noise - (1 - a).sqrt() * clean
    sizes = time_ids(n)
    for i in np.flatnonzero(rng.random(n) < OTHER_SIZE):
        sizes[i, :2] = torch.from_numpy(rng.integers(64, 2048, 2))
    with fast(device):
        contexts, pooled = model.text(*(t.to(device) for t in tokens))
        contexts, pooled = contexts.unflatten(0, (4, n)), pooled[:n]
        captioned = (torch.rand(n, generator=seed) >= NO_CAPTION).to(device)
        with_pooled = (torch.rand(n, generator=seed) >= NO_POOLED).to(device)
        pooled = pooled * (captioned & with_pooled)[:, None]
        contexts = contexts * captioned[:, None, None]
        with contextlib.ExitStack() as ears:
            for group in groups:
                which = heard(group, timesteps, seed, MISLED)
                words = contexts[which.to(device), torch.arange(n, device=device)]
                ears.enter_context(other_context(model.unet, group, words))
            output = model(noisy, timesteps.to(device), contexts[0], pooled, sizes.to(device))
    error = (output.float() - target).pow(2).mean((1, 2, 3))
    snr = (a / (1 - a)).flatten()
    weights = snr.clamp(max=MIN_SNR) / (snr + 1)
    return (weights * error).sum() / weights.sum()


class UnetTraining:
    """Model, moving average, optimizer and latents, on one device."""

    def __init__(self, run_dir: Path, device: str, from_nothing: bool = False) -> None:
        self.run_dir, self.device, self.step = run_dir, torch.device(device), 0
        self._state = run_dir / "unet.pt"
        torch.manual_seed(5)
        fresh = self._state.exists() or from_nothing
        self.model = (Miniature() if fresh else first_model()).to(self.device)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0, fused=True
        )
        if self._state.exists():
            self._load(torch.load(self._state, map_location="cpu", weights_only=True))
        latents = Latents(run_dir)
        self.clean = torch.from_numpy(latents.values)
        self.captions = Captions(self.model, latents.facts)
        self.alphas, self.groups = alphas_cumprod(), list(recognise(self.model.unet).groups)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        part = self._state.with_suffix(".part")
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": self.step}, part)
        part.replace(self._state)

    def one_step(self, rate: float, batch: int, rng: np.random.Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        chosen = rng.integers(0, len(self.clean), batch)
        clean = self.clean[torch.from_numpy(chosen)].float().to(self.device)
        tokens = self.captions.of(chosen, rng)
        loss = loss_of(self.model, clean, tokens, self.alphas, rng, self.groups)
        self.step += 1
        learn(loss, self.model, self.average, self.optimizer, self.step, AVERAGE)
        return float(loss.detach())


def show(model: Miniature, run_dir: Path, name: str) -> None:
    """A sheet of classes and styles, samples/NAME.png."""
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    model = copy.deepcopy(model).cpu().eval()
    rows = []
    for row, style in enumerate(["", "", *CORE_STYLES[::3]]):
        kinds = CORE_KINDS[::2] if row != 1 else CORE_KINDS[1::2]
        prompts = [in_style(article(kind), style) for kind in kinds]
        rows.append(np.concatenate(list(decode(vae, sample(model, prompts, row, guidance=2.5))), 1))
    (run_dir / "samples").mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(run_dir / "samples" / f"{name}.png")


def train(
    run_dir: Path, minutes: float, rate: float, cool: bool, device: str, batch: int, fresh: bool
) -> bool:
    """Whether the whole stretch was run, rather than stopped."""
    training, clock = UnetTraining(run_dir, device, fresh), Clock(minutes)
    print(f"{len(training.clean)} images, from step {training.step}", flush=True)
    rng, losses, first = np.random.default_rng((11, training.step)), [], training.step
    while clock.running:
        warm = min(1.0, (training.step - first + 1) / WARM_STEPS)
        now = rate * warm * (clock.falling if cool else 1.0)
        losses.append(training.one_step(now, batch, rng))
        if clock.due("save", 3):
            training.save()
            print(f"{clock.minutes:.1f} min, step {training.step}, loss {np.mean(losses):.4f}",
                  flush=True)  # fmt: skip
            losses = []
        if clock.due("show", 20):
            show(training.average, run_dir, f"{training.step:06d}")
    training.save()
    show(training.average, run_dir, f"{training.step:06d}")
    return not clock.stopped


def main() -> None:
    parser = stretch_parser(__doc__, RATE, BATCH)
    parser.add_argument("--from-nothing", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    train(a.run_dir, a.minutes, a.rate, a.cool, a.device, a.batch, a.from_nothing)


if __name__ == "__main__":
    main()
