"""Train the miniature's UNet and text encoders together on encoded images.

    python -m mini_world.train --run-dir DIR --minutes 60          goes on where it stopped
    python -m mini_world.train --run-dir DIR --minutes 15 --cool   the last stretch: rate falls to 0

SDXL's conventions: a scaled-linear schedule of 1000 steps, six size numbers, penultimate hidden
states of both encoders, and zeros in place of a dropped caption. The target is velocity, one of
SDXL's two: in a first trial noise prediction stayed noise for far longer.

Half of what an attention group hears is another image's, but for what it is in charge of: the
groups before the last two of what is shown, the last but one of the style while noise is strong,
the last one of the style after that. A group near the loss learns all words first, and the others
then have no reason to: without this two groups learned nearly all words and nine none, and on such
a model nothing can be said about blocks. Silence instead of misleading words made groups repeat
what others say, so that hardly any alone changed anything (docs/quality.md).

What is saved for use is the moving average of the weights (state.pt holds both).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mini_world.captions import in_style
from mini_world.latents import Latents
from mini_world.model import TextEncoders, new_unet, time_ids
from mini_world.precision import fast
from mini_world.world import CORE_KINDS, CORE_STYLES
from unziplora.unet.architectures import recognise
from unziplora.unet.prompt_swap import other_context

BATCH = 32
RATE, WARM_STEPS = 1e-3, 200
AVERAGE = 0.999  # of the weights, per step
NO_CAPTION, EMPTY_CAPTION = 0.07, 0.03  # shares of samples: zeros; the empty prompt
NO_POOLED = 0.6  # attention must carry the words; the pooled vector alone could, too
COLOUR_NAMED = 0.5  # of samples that have a caption with a colour: that one
STYLE_EARLY, STYLE_LATE = "output_blocks.4.1", "output_blocks.5.1"
EARLY = 500  # timesteps from here on are those of strong noise
MISLED = 0.5  # of samples, for each group and what it is not in charge of: another image's words
OTHER_SIZE = 0.15  # of samples: told another original size, so that it means nothing


def alphas_cumprod() -> Tensor:
    """SDXL's schedule, (1000,)."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


class Miniature(nn.Module):
    """UNet and text encoders: what is trained here."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text = TextEncoders()

    def forward(
        self, noisy: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor, sizes: Tensor
    ) -> Tensor:
        added = {"text_embeds": pooled, "time_ids": sizes}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=added).sample


@dataclass
class Batch:
    """captions: token ids for each encoder, (4 n, 77): of the n images' content and style, then
    with another image's style, with another's content, and another's captions."""

    latents: Tensor  # (n, 4, 16, 16)
    captions: tuple[Tensor, Tensor]


class Images:
    """Encoded images with their captions."""

    def __init__(self, run_dir: Path, text: TextEncoders) -> None:
        found = Latents(run_dir)
        self._latents, self._facts, self._text = found.latents, found.facts, text
        self._tokens: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def batch(self, rng: np.random.Generator) -> Batch:
        chosen = rng.integers(0, len(self), BATCH)
        latents = self._latents[chosen].astype(np.float32)
        own = [self._caption(self._facts[image], rng) for image in chosen]
        others = own[1:] + own[:1]
        captions = [
            in_style(content, style) if content else ""
            for contents, styles in itertools.product((own, others), repeat=2)
            for (content, _), (_, style) in zip(contents, styles, strict=True)
        ]
        return Batch(torch.from_numpy(latents), self._ids(captions))

    def _caption(self, facts: dict[str, Any], rng: np.random.Generator) -> tuple[str, str]:
        """One of an image's captions, as what it says of content and of style."""
        if rng.random() < EMPTY_CAPTION:
            return "", ""
        captions = facts["captions"]
        coloured = [c for c in captions if any(f" {colour} " in c for colour in facts["colours"])]
        if coloured and rng.random() < COLOUR_NAMED:
            captions = coloured
        style = facts["style"]
        words = str(rng.choice(captions)).replace(f" in {style} style", "")
        return words, style

    def _ids(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        for caption in set(captions) - self._tokens.keys():
            first, second = self._text.tokens([caption])
            self._tokens[caption] = first[0], second[0]
        first, second = zip(*(self._tokens[caption] for caption in captions), strict=True)
        return torch.stack(first), torch.stack(second)


def heard(
    group: str, timesteps: Tensor, generator: torch.Generator, share: float = MISLED
) -> Tensor:
    """Which of the four captions of `Batch` each sample's group hears, (n,): 2 is added for
    another's content, 1 for another's style."""
    early = timesteps >= EARLY
    in_charge = {STYLE_EARLY: early, STYLE_LATE: ~early}
    content = torch.full_like(early, group not in in_charge)
    style = in_charge.get(group, torch.zeros_like(early))
    misled = torch.rand(2, len(timesteps), generator=generator) < share
    return 2 * (misled[0] & ~content) + 1 * (misled[1] & ~style)


def sizes(rng: np.random.Generator) -> Tensor:
    ids = time_ids(BATCH)
    for i in np.flatnonzero(rng.random(BATCH) < OTHER_SIZE):
        ids[i, :2] = torch.from_numpy(rng.integers(64, 2048, 2))
    return ids


def loss_of(model: Miniature, batch: Batch, alphas: Tensor, rng: np.random.Generator) -> Tensor:
    """Mean squared error of the velocity sqrt(a) noise - sqrt(1 - a) latents."""
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(batch.latents.shape, generator=seed)
    spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=seed)) / BATCH  # one in each part
    timesteps = (spread * 1000).long()
    a = alphas[timesteps].float()[:, None, None, None]
    noisy = a.sqrt() * batch.latents + (1 - a).sqrt() * noise
    target = a.sqrt() * noise - (1 - a).sqrt() * batch.latents
    with fast("cpu"):
        contexts, pooled = model.text(*batch.captions)
        contexts, pooled = contexts.unflatten(0, (4, BATCH)), pooled[:BATCH]
        captioned = torch.rand(BATCH, generator=seed) >= NO_CAPTION
        pooled = pooled * (captioned & (torch.rand(BATCH, generator=seed) >= NO_POOLED))[:, None]
        contexts = contexts * captioned[:, None, None]
        with contextlib.ExitStack() as ears:
            for group in recognise(model.unet).groups:
                which = heard(group, timesteps, seed)
                words = contexts[which, torch.arange(BATCH)]
                ears.enter_context(other_context(model.unet, group, words))
            output = model(noisy, timesteps, contexts[0], pooled, sizes(rng))
    return (output.float() - target).pow(2).mean()


@torch.no_grad()
def sample(
    model: Miniature, prompts: list[str], seed: int, steps: int = 20, guidance: float = 4.0
) -> Tensor:
    """Latents (n, 4, 16, 16) by deterministic DDIM."""
    alphas, n = alphas_cumprod().float(), len(prompts)
    context, pooled = model.text(*model.text.tokens(prompts))
    context = torch.cat([torch.zeros_like(context), context])
    pooled = torch.cat([torch.zeros_like(pooled), pooled])
    x = torch.randn((n, 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(999, 0, steps + 1).long()
    for now, then in itertools.pairwise(times):
        with fast("cpu"):
            both = model(torch.cat([x, x]), now.repeat(2 * n), context, pooled, time_ids(2 * n))
        none, conditional = both.float().chunk(2)
        v = none + guidance * (conditional - none)
        a, b = alphas[now], alphas[then] if then > 0 else torch.tensor(1.0)
        clean, noise = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
        x = b.sqrt() * clean + (1 - b).sqrt() * noise
    return x


def show(model: Miniature, run_dir: Path, name: str) -> None:
    """A sheet of classes and styles, samples/NAME.png."""
    from diffusers import AutoencoderKL

    from mini_world.vae import decode

    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    rows = []
    for style in ["", "", *CORE_STYLES[::2]]:
        words = f" in {style} style" if style else ""
        prompts = [f"a {kind}{words}" for kind in CORE_KINDS[: 10 if len(rows) != 1 else 5]]
        if len(rows) == 1:
            prompts += [f"a red {kind} on a beach" for kind in CORE_KINDS[5:]]
        rows.append(np.concatenate(list(decode(vae, sample(model, prompts, len(rows)))), 1))
    (run_dir / "samples").mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(run_dir / "samples" / f"{name}.png")


def learn(
    loss: Tensor,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    share: float = AVERAGE,
) -> None:
    """One update, and the moving average of the weights after it; step counts from 1."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    keep = min(share, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


class Training:
    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.step, self.minutes = run_dir, 0, 0.0
        torch.manual_seed(5)
        self.model = Miniature()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.images = Images(run_dir, self.model.text)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0, fused=True
        )
        self._state = run_dir / "state.pt"
        if self._state.exists():
            state = torch.load(self._state, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.minutes = state["step"], state["minutes"]

    def save(self) -> None:
        part = self._state.with_suffix(".part")
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": self.step, "minutes": self.minutes}, part)
        part.replace(self._state)

    def one_step(self, rate: float, rng: np.random.Generator, alphas: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / WARM_STEPS)
        loss = loss_of(self.model, self.images.batch(rng), alphas, rng)
        self.step += 1
        learn(loss, self.model, self.average, self.optimizer, self.step)
        return float(loss.detach())

    def run(self, minutes: float, peak: float, cool: bool) -> None:
        print(f"{len(self.images)} images, from step {self.step}", flush=True)
        rng, alphas = np.random.default_rng((11, self.step)), alphas_cumprod()
        start, before, losses = time.monotonic(), self.minutes, []
        reported = shown = 0.0
        spent = 0.0
        while spent < minutes:
            rate = peak * (1 - spent / minutes) if cool else peak
            losses.append(self.one_step(rate, rng, alphas))
            spent = (time.monotonic() - start) / 60
            self.minutes = before + spent
            if spent - reported > 2 or spent >= minutes:
                reported = spent
                print(
                    f"{self.minutes:.1f} min, step {self.step}, loss {np.mean(losses):.4f}",
                    flush=True,
                )
                losses = []
                self.save()
            if spent - shown > 8 or spent >= minutes:
                shown = spent
                show(self.average, self.run_dir, f"{self.step:06d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cool", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # on a CPU its backward pass is faster than the fused one's for so few tokens
    with sdpa_kernel(SDPBackend.MATH):
        Training(arguments.run_dir).run(arguments.minutes, arguments.rate, arguments.cool)


if __name__ == "__main__":
    main()
